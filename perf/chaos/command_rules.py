"""The lane ``commands`` and the outcomes that answer it, compared record by record.

A command may stand in the lane more than once: who appends it in doubt appends it again, under the
same id (docs/log-protocol.md). So what is judged is not how often it stands there. Each of its
records has one outcome, in the decision that consumed it, in the order of the lane; and the first
record alone has an effect.

A decision may be heard before the commands that it consumed. It waits here until the lane was read
so far, so that no race is taken for a fault.
"""

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from engine.decided import CatalogueChange, Cause, Decided, Outcome
from perf.chaos.effects import COMMANDS_LANE, Effects, Order
from perf.chaos.truth import Found, ShardTruth, is_forgotten
from persistence.ports import Record

ANSWERED: Final = "done"


class Consumed(Struct, frozen=True):
    """What one decision consumed of the lane, and what it says."""

    before: int  # the last command of the decision before
    decided: Decided

    @property
    def through(self) -> int:
        """Return the last command that it consumed."""
        return self.decided.last_command

    def outcomes(self) -> list[Outcome]:
        """Return its answers to commands of the lane, as they stand."""
        return [each for each in self.decided.outcomes if each.position.lane == COMMANDS_LANE]

    def changes(self) -> list[CatalogueChange]:
        """Return its accepted changes that name a command of the lane as their cause."""
        return [each for each in self.decided.catalogue if each.position.lane == COMMANDS_LANE]


class CommandLane:
    """One shard's commands, and whether its decisions answer them."""

    def __init__(self, truth: ShardTruth, found: Found, judged: Counter[str]) -> None:
        self.done: Counter[str] = Counter()  # kind -> how many were done
        self.repeated = 0  # records of a command that stood in the lane before
        self.effects = Effects(truth, found, judged)
        self.first: dict[str, int] = {}  # id -> offset of its first record
        self._truth = truth
        self._found = found
        self._judged = judged
        self._orders: dict[int, Order] = {}  # by offset
        self.end = 0  # the offset that its next record will have
        self._consumed = -1
        self._answered: set[int] = set()
        self._heeded: dict[str, tuple[int, int]] = {}  # id -> offset that had effect, and when
        self._waiting: deque[Consumed] = deque()

    def logged(self, record: Record) -> None:
        """Take the lane's next record."""
        self.end = record.offset + 1
        body = json.loads(record.value)
        command_id = body.pop("command_id", None)
        body.pop("observed_ms", None)  # when it was said is not what it says
        self._judged["command records"] += 1
        if command_id is None:
            self._settle()
            return  # nobody asked for an answer
        first = self.first.setdefault(command_id, record.offset)
        self.repeated += first != record.offset
        self._judged["commands followed"] += first == record.offset
        self._orders[record.offset] = Order(record.offset, first, command_id, body)
        self._settle()

    def decided(self, decided: Decided) -> None:
        """Take the next decision that counts."""
        before = self._waiting[-1].through if self._waiting else self._consumed
        self._waiting.append(Consumed(before, decided))
        self._settle()

    def finish(self) -> None:
        """Judge what is left: both logs were read to their ends."""
        if self._waiting:
            through = self._waiting[-1].through
            self._found(
                "consumed_ahead",
                f"{self._place()}: consumed command {through}, the lane ends at {self.end}",
            )
        while self._waiting:
            self._judge(self._waiting.popleft())
        for order in self._orders.values():
            if order.offset > self._consumed:
                self._found(
                    "command_lost",
                    f"{self._place()}: {order.name} was never consumed, nor answered",
                )

    def _settle(self) -> None:
        while self._waiting and self._waiting[0].through < self.end:
            self._judge(self._waiting.popleft())

    def _judge(self, consumed: Consumed) -> None:
        self._consumed = max(self._consumed, consumed.through)
        self._renew(consumed)
        outcomes = consumed.outcomes()
        if consumed.through > consumed.before or outcomes:
            self._judge_answers(consumed, outcomes)
        done = self._done(outcomes)
        self._judge_changes(consumed, done)
        self._judge_causes(consumed)
        self.effects.take(consumed.decided, [self._orders[offset] for offset in done], outcomes)

    def _renew(self, consumed: Consumed) -> None:
        """Let a command that is given again when its answer is forgotten count as given first."""
        now_ms = consumed.decided.decided_ms
        for offset in range(consumed.before + 1, consumed.through + 1):
            order = self._orders.get(offset)
            if order is None:
                continue
            first, first_ms = self._heeded.setdefault(order.command_id, (order.first, now_ms))
            if is_forgotten(first_ms, now_ms):
                first = offset
                self._heeded[order.command_id] = (offset, now_ms)
            self._orders[offset] = replace(order, first=first)

    def _judge_answers(self, consumed: Consumed, outcomes: list[Outcome]) -> None:
        """Compare the outcomes of a decision with the commands that it consumed."""
        place = f"{self._place()}, seq {consumed.decided.seq}"
        answered = [each.position.offset for each in outcomes]
        if sorted(answered) != answered:
            self._found("command_reordered", f"{place}: answers commands in the order {answered}")
        for outcome in outcomes:
            self._judge_answer(consumed, outcome)
        for offset in range(consumed.before + 1, consumed.through + 1):
            if offset in self._orders and offset not in self._answered:
                refusal = self._truth.refused.get((COMMANDS_LANE, offset), "no word of it")
                self._found(
                    "command_unanswered",
                    f"{place}: {self._orders[offset].name} was consumed without an outcome: "
                    f"{refusal}",
                )

    def _judge_answer(self, consumed: Consumed, outcome: Outcome) -> None:
        offset, place = outcome.position.offset, f"{self._place()}, seq {consumed.decided.seq}"
        self._judged["command outcomes"] += 1
        order = self._orders.get(offset)
        told = f"an outcome of {outcome.kind} {outcome.command_id} at offset {offset}"
        if order is None or (order.command_id, order.kind) != (outcome.command_id, outcome.kind):
            stands = "nothing" if order is None else order.name
            self._found("outcome_unasked", f"{place}: {told}, where {stands} stands")
        elif offset in self._answered:
            self._found("command_doubled", f"{place}: {told} that was answered before")
        elif offset > consumed.through:
            self._found("outcome_unasked", f"{place}: {told} that is not consumed yet")
        self._answered.add(offset)

    def _done(self, outcomes: list[Outcome]) -> list[int]:
        """Return the offsets of the commands that take effect here, in the order of the answers.

        A command given again gets its first answer again, and changes nothing.
        """
        offsets = []
        for outcome in outcomes:
            order = self._orders.get(outcome.position.offset)
            if order is None or order.first != order.offset or outcome.status != ANSWERED:
                continue
            if order.offset not in offsets:
                offsets.append(order.offset)
                self.done[order.kind] += 1
        return offsets

    def _judge_changes(self, consumed: Consumed, done: list[int]) -> None:
        """Compare what a decision says to have changed with the commands that were done."""
        place = f"{self._place()}, seq {consumed.decided.seq}"
        told: dict[int, list[tuple[str, Mapping[str, Any]]]] = {offset: [] for offset in done}
        for change in consumed.changes():
            offset = change.position.offset
            order = self._orders.get(offset)
            if offset in told:
                told[offset].append((change.what, change.fields))
            elif order is not None and order.first < offset:
                self._found(
                    "command_doubled", f"{place}: {order.name} takes effect again: {change.what}"
                )
            else:
                name = f"offset {offset}" if order is None else order.name
                self._found(
                    "effect_differs", f"{place}: {change.what} by {name}, which was not done"
                )
        for offset, changes in told.items():
            order = self._orders[offset]
            wanted = order.changes()
            if wanted != [(what, _named(fields, wanted)) for what, fields in changes]:
                self._found(
                    "effect_differs", f"{place}: {order.name} was done and changed {changes}"
                )

    def _judge_causes(self, consumed: Consumed) -> None:
        """Judge which commands quotes name as their cause: never one that was given again."""
        quotes = consumed.decided.quotes
        if not len(quotes):
            return
        caused = (quotes["cause_kind"] == Cause.DELTA) & (quotes["cause_lane"] == COMMANDS_LANE)
        for offset in set(quotes["cause_offset"][caused].tolist()):
            order = self._orders.get(offset)
            if order is not None and order.first < offset:
                self._found(
                    "command_doubled",
                    f"{self._place()}, seq {consumed.decided.seq}: {order.name} moves a price, and "
                    f"stood at {order.first} before",
                )

    def _place(self) -> str:
        return f"shard {self._truth.shard}"


class Asked(Struct):
    """A command as a client sees it."""

    asked_ms: int  # before it was sent for the first time
    told_ms: int  # when it was first told that the command is taken


class GivenOrder:
    """Whether commands stand in a lane in the order in which clients gave them.

    Only that of two is judged of which one was given after the other was known to be taken.
    """

    def __init__(self, lanes: list[CommandLane], found: Found) -> None:
        self._lanes = lanes
        self._found = found
        self._asked: list[dict[str, Asked]] = [{} for _ in lanes]

    def told(self, shard: int, command_id: str, asked_ms: int, told_ms: int) -> None:
        """Take note that a client was told that its command is taken."""
        asked = self._asked[shard].setdefault(command_id, Asked(asked_ms, told_ms))
        asked.asked_ms = min(asked.asked_ms, asked_ms)
        asked.told_ms = min(asked.told_ms, told_ms)

    def finish(self) -> None:
        """Judge it."""
        for lane, asked in zip(self._lanes, self._asked, strict=True):
            self._judge(lane, asked)

    def _judge(self, lane: CommandLane, asked: Mapping[str, Asked]) -> None:
        placed = {name: each for name, each in asked.items() if name in lane.first}
        by_asked = sorted(placed, key=lambda name: placed[name].asked_ms)
        told = deque(sorted(placed, key=lambda name: placed[name].told_ms))
        last, last_name = -1, ""
        for name in by_asked:
            while told and placed[told[0]].told_ms < placed[name].asked_ms:
                before = told.popleft()
                if lane.first[before] > last:
                    last, last_name = lane.first[before], before
            if lane.first[name] < last:
                self._found(
                    "command_reordered",
                    f"command {name} stands at offset {lane.first[name]}, before {last_name} at "
                    f"{last}, which was taken before it was given",
                )


def _named(
    fields: Mapping[str, Any], wanted: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """Return those of a change's fields that commands name; the rest is the engine's own."""
    names = {name for _, each in wanted for name in each}
    return {name: fields.get(name) for name in names}
