"""The online checker: hears both logs and everything that a client was told, and judges it.

It does no I/O and reads no clock. A claim that the log can only confirm later waits until the log
was read so far (``settle``), so nothing is excused by a race. Each rule has a test that breaks it;
docs/chaos.md says in words what each one means.
"""

import json
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from engine.errors import PricingError
from perf.chaos.command_rules import CommandLane, GivenOrder
from perf.chaos.documents import Sale, digest, minor, place_of, sale_of, unix_ms
from perf.chaos.event_time import EventTime
from perf.chaos.rules import RULES
from perf.chaos.stream_rules import StreamRules
from perf.chaos.truth import ShardTruth, Shown
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Record

STALE_MS: Final = 2_000
DELTAS_LANE: Final = 1
VIOLATIONS_KEPT: Final = 50
"""Of each rule; the others are counted."""


class Violation(Struct, frozen=True):
    """A rule broken: which, when, and by what."""

    rule: str
    at_ms: int
    detail: str


class Answer(Struct, frozen=True):
    """What a gateway answered to a price read."""

    retailer: str
    asked_ms: int  # unix, before the request was sent
    document: Mapping[str, Any]
    strong: bool = False
    clock_behind: bool = False  # the gateway's, for some of the time until it answered


class Told(Struct, frozen=True):
    """What a client was told of a command: an outcome, or ``pending``: it was taken."""

    operation_id: str
    shard: int
    told_ms: int
    status: str
    price_minor: int = 0
    asked_ms: int = 0  # before it was sent for the first time; 0: not known


class Checker:
    """Judges what it hears. All methods are called from one thread."""

    def __init__(self, shards: int, *, generation: int, now_ms: Callable[[], int]) -> None:
        self.generation = generation
        self.violations: list[Violation] = []
        self.broken: Counter[str] = Counter()  # rule -> how often
        self.judged: Counter[str] = Counter()  # what was judged, by kind
        self.truths = [ShardTruth(shard, self.found) for shard in range(shards)]
        self.commands = [CommandLane(each, self.found, self.judged) for each in self.truths]
        self.streams = StreamRules(self)
        self._event_time = [EventTime(each, self.found, self.judged) for each in range(shards)]
        self._now_ms = now_ms
        self._readers: list[DecisionReader | None] = [
            DecisionReader(None, shard=shard, generation=generation) for shard in range(shards)
        ]
        self._answers: deque[Answer] = deque()
        self._told: deque[Told] = deque()
        self._given = GivenOrder(self.commands, self.found)
        self._lanes: list[dict[int, bytes]] = [{} for _ in range(shards)]  # offset -> digest
        self._lane_ends = array("q", [0] * shards)
        self._sales: list[dict[int, Sale]] = [{} for _ in range(shards)]
        self._counted: list[Counter[Sale]] = [Counter() for _ in range(shards)]
        self._consumed = array("q", [-1] * shards)
        self._sent: list[dict[int, bytes]] = [{} for _ in range(shards)]
        self._sent_last = array("q", [-1] * shards)

    def found(self, rule: str, detail: str) -> None:
        """Take note of a violation."""
        assert rule in RULES, rule
        self.broken[rule] += 1
        if self.broken[rule] <= VIOLATIONS_KEPT:
            self.violations.append(Violation(rule, self._now_ms(), detail))

    # ----- the logs -----------------------------------------------------------------------------

    def logged(self, shard: int, record: Record) -> bool:
        """Take the next record of a decision log; return whether it counts."""
        truth = self.truths[shard]
        before, lost = truth.last_delta, self.broken["decision_lost"]
        newest = truth.newest_decided
        counts = truth.take(record)
        if self.broken["decision_lost"] > lost:
            self._readers[shard] = None  # it stops at a gap, as it must
        self._compare_reader(shard, record, counts)
        self.judged["decision records"] += 1
        if truth.newest_decided is not None and truth.newest_decided is not newest:
            self.commands[shard].decided(truth.newest_decided)
            if truth.clock == "event":
                self._event_time[shard].decided(truth.newest_decided)
        if truth.last_delta > before:
            self._consume(shard, before, truth.last_delta)
        return counts

    def _compare_reader(self, shard: int, record: Record, counts: bool) -> None:
        reader = self._readers[shard]
        if reader is None:
            return
        try:
            accepted = reader.accept(record) is not None
        except (PricingError, AssertionError) as fault:
            # Production would have stopped here; the raw rules say whether the log is at fault.
            self._readers[shard] = None
            self.found("reader_disagrees", f"shard {shard}, offset {record.offset}: {fault!r}")
            return
        if accepted != counts:
            verb = "takes" if accepted else "refuses"
            self.found("reader_disagrees", f"shard {shard}: it {verb} offset {record.offset}")

    def delta_logged(self, shard: int, record: Record) -> None:
        """Take the next record of a shard's delta lane."""
        self._lane_ends[shard] = record.offset + 1
        self._lanes[shard][record.offset] = digest(record.value)
        document = json.loads(record.value)
        self._event_time[shard].fact(record.offset, document.get("observed_ms", 0))
        sale = sale_of(document)
        if sale is not None:
            self._sales[shard][record.offset] = sale
        self.judged["deltas"] += 1
        if record.offset <= self._consumed[shard]:
            self._count_sale(shard, record.offset)  # the decision was heard first

    def reached(self, topic: str, shard: int) -> int:
        """Return the offset of the record of a topic that will be heard next."""
        ends = {
            COMMANDS: self.commands[shard].end,
            DELTAS: self._lane_ends[shard],
            DECISIONS: self.truths[shard].offset + 1,
        }
        return ends[topic]

    def command_logged(self, shard: int, record: Record) -> None:
        """Take the next record of a shard's commands lane."""
        self.commands[shard].logged(record)

    def sent(self, shard: int, offset: int, value: bytes) -> None:
        """Take note that a producer was told where its delta stands."""
        self._sent[shard][offset] = digest(value)
        self._sent_last[shard] = max(self._sent_last[shard], offset)

    def _consume(self, shard: int, after: int, through: int) -> None:
        self._consumed[shard] = through
        for offset in range(after + 1, through + 1):
            if offset in self._lanes[shard]:
                self._count_sale(shard, offset)

    def _count_sale(self, shard: int, offset: int) -> None:
        sale = self._sales[shard].get(offset)
        if sale is None or (DELTAS_LANE, offset) in self.truths[shard].refused:
            return
        self._counted[shard][sale] += 1
        if self._counted[shard][sale] > 1:
            self.found("delta_twice", f"shard {shard}, offset {offset}: sale {sale}")

    # ----- what clients were told ---------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        """Take an answer to a price read."""
        self.judged["strong reads" if answer.strong else "reads"] += 1
        document = answer.document
        age_ms = answer.asked_ms - unix_ms(document["as_of"])
        if answer.clock_behind:
            # It cannot know how old its newest record is: only that it heard of it just now. The
            # time that it names is judged all the same.
            self.judged["reads by a clock that is behind"] += 1
        elif age_ms > STALE_MS and not document["stale"]:
            self.found("stale_unmarked", f"{document['sku']}: {age_ms} ms old when it was asked")
        self._answers.append(answer)

    def told(self, told: Told) -> None:
        """Take what a client was told of a command."""
        self.judged["commands"] += 1
        self._told.append(told)
        if told.asked_ms:
            self._given.told(told.shard, told.operation_id, told.asked_ms, told.told_ms)

    def settle(self) -> None:
        """Judge what the logs can confirm or refute by now."""
        for _ in range(len(self._answers)):
            answer = self._answers.popleft()
            if not self._judge_answer(answer, last=False):
                self._answers.append(answer)
        for _ in range(len(self._told)):
            told = self._told.popleft()
            if told.status == "pending" or not self._judge_told(told):
                self._told.append(told)
        self.streams.settle()

    def finish(self) -> None:
        """Judge everything that is left: the logs were read to their ends."""
        for answer in self._answers:
            self._judge_answer(answer, last=True)
        for told in self._told:
            if told.status == "pending":
                self._judge_taken(told)
            elif not self._judge_told(told):
                self._refute(told)
        self._answers.clear()
        self._told.clear()
        self.streams.finish()
        for lane in self.commands:
            lane.finish()
        self._given.finish()
        for shard in range(len(self.truths)):
            self._judge_deltas(shard)

    def compare_gateway(self, retailer: str, documents: Iterable[Mapping[str, Any]]) -> None:
        """Compare all of a retailer's prices at the gateway with the log, read beyond them.

        ``documents`` are recommendations, one a listing.
        """
        shown = {(each["channel"], each["sku"]): each for each in documents}
        for truth in self.truths:
            for (owner, channel, sku), listing in truth.names.items():
                if owner != retailer or not truth.quotes.get(listing):
                    continue
                self.judged["final prices"] += 1
                document = shown.get((channel, sku))
                if document is None:
                    self.found("gateway_differs", f"{sku} on {channel} is not there")
                    continue
                orders = truth.orders_at(unix_ms(document["as_of"])) or (-1, -1)
                newest = truth.possible(listing, *orders)
                places = [(each.seq, each.index) for each in newest if each is not None]
                if place_of(document) not in places or document["stale"]:
                    self.found(
                        "gateway_differs",
                        f"{sku} on {channel} is {place_of(document)}, stale: {document['stale']}, "
                        f"the log holds {places}",
                    )

    def compare_standing(
        self,
        retailer: str,
        publishing: Mapping[str, Any],
        policies: Iterable[Mapping[str, Any]],
    ) -> None:
        """Compare what the gateway says of halts and listings' approvals with the commands' word.

        Both as of the end: no command is under way any more.
        """
        shown = {each["channel"] or "" for each in publishing["halts"]}
        approvals = {
            each["key"]: each["fields"]["approval"]
            for each in policies
            if "approval" in each["fields"]
        }
        halted: set[str] = set()
        said: dict[str, str] = {}
        for lane in self.commands:
            halted |= lane.effects.halted.get(retailer, set())
            said |= lane.effects.approvals(retailer)
        self.judged["final halts and policies"] += 1 + len(said)
        if shown != halted:
            self.found(
                "gateway_differs", f"{retailer}: halted are {shown}, by the commands {halted}"
            )
        if approvals != said:
            differing = {key for key, _ in approvals.items() ^ said.items()}
            self.found(
                "gateway_differs", f"{retailer}: approvals of {sorted(differing)[:5]} differ"
            )

    def _judge_answer(self, answer: Answer, *, last: bool) -> bool:
        """Judge a read once the log was read beyond it; return whether it was judged."""
        document = answer.document
        truth, listing = self.listing_of(answer.retailer, document)
        if truth is None:
            if last:
                self.found("price_not_in_log", f"{document['sku']}: no such listing in the log")
            return last
        as_of_ms = unix_ms(document["as_of"])
        if truth.appended_ms <= (answer.asked_ms if answer.strong else as_of_ms) and not last:
            return False
        if not self.judge_price(truth, listing, document, last=last):
            return False
        if answer.strong:
            order = truth.orders_before(answer.asked_ms) - 1
            newest = truth.newest(listing, order)
            if newest is not None and (placed := place_of(document)) < (newest.seq, newest.index):
                self.found(
                    "strong_read_old", f"{document['sku']}: {placed}, the log had seq {newest.seq}"
                )
            return True
        if as_of_ms > 0:
            self._judge_as_of(truth, listing, document, as_of_ms)
        return True

    def _judge_as_of(
        self, truth: ShardTruth, listing: int, document: Mapping[str, Any], as_of_ms: int
    ) -> None:
        orders = truth.orders_at(as_of_ms)
        if orders is None:
            self.found("as_of_not_in_log", f"{document['sku']}: as of {document['as_of']}")
            return
        places = [
            (each.seq, each.index) if each is not None else (0, -1)
            for each in truth.possible(listing, *orders)
        ]
        if (shown := place_of(document)) not in places:
            self.found(
                "price_not_newest",
                f"{document['sku']}: quote {shown} as of {document['as_of']}, the log had "
                f"{places[-1]}",
            )

    def judge_price(
        self, truth: ShardTruth, listing: int, document: Mapping[str, Any], *, last: bool
    ) -> bool:
        """Compare a price shown with the log; return whether the log was read so far."""
        if document["quote_id"] is None:
            return True
        place = place_of(document)
        if place[0] > truth.seq and not last:
            return False
        prices = (minor(document["current_price"]), minor(document["recommended_price"]))
        if _same(truth.placed.get(place), listing, prices):
            return True
        forged = any(_same(each, listing, prices) for each in truth.forged.get(place, ()))
        self.found(
            "replaced_owner_believed" if forged else "price_not_in_log",
            f"{document['sku']}: quote {document['quote_id']} with {prices}, the log holds "
            f"{truth.placed.get(place)}",
        )
        return True

    def listing_of(
        self, retailer: str, document: Mapping[str, Any]
    ) -> tuple[ShardTruth | None, int]:
        """Return the shard and the key of a listing that the log named."""
        name = (retailer, document["channel"], document["sku"])
        for truth in self.truths:
            if name in truth.names:
                return truth, truth.names[name]
        return None, 0

    def _judge_told(self, told: Told) -> bool:
        """Whether the log confirms, or was read far enough to refute, what a client was told."""
        truth = self.truths[told.shard]
        said = truth.outcomes.get(told.operation_id)
        if said is None:
            if truth.appended_ms <= told.told_ms:
                return False
            self._refute(told)
            return True
        is_same = said.status == told.status or told.status == "duplicate"
        if not is_same or (told.price_minor and told.price_minor != said.price_minor):
            self.found(
                "outcome_not_in_log",
                f"command {told.operation_id}: told {told.status} {told.price_minor}, the log "
                f"says {said.status} {said.price_minor}",
            )
        return True

    def _refute(self, told: Told) -> None:
        self.found(
            "outcome_not_in_log",
            f"command {told.operation_id}: told {told.status}, the log holds no outcome",
        )

    def _judge_taken(self, told: Told) -> None:
        if told.operation_id not in self.truths[told.shard].outcomes:
            self.found("command_lost", f"command {told.operation_id} was taken, and nothing came")

    def _judge_deltas(self, shard: int) -> None:
        truth, lane = self.truths[shard], self._lanes[shard]
        for offset, sent in self._sent[shard].items():
            if lane.get(offset) != sent:
                self.found("delta_lost", f"shard {shard}, offset {offset}")
            elif offset > truth.last_delta:
                self.found("delta_not_consumed", f"shard {shard}, offset {offset}")
            elif (sale := self._sales[shard].get(offset)) and not self._counted[shard][sale]:
                verdict = truth.refused.get((DELTAS_LANE, offset))
                self.found("delta_not_consumed", f"shard {shard}: sale {sale} was {verdict}")
        if truth.last_delta >= self._lane_ends[shard]:
            self.found(
                "consumed_ahead",
                f"shard {shard}: consumed {truth.last_delta}, the lane ends at "
                f"{self._lane_ends[shard]}",
            )


def _same(shown: Shown | None, listing: int, prices: tuple[int, int]) -> bool:
    return shown is not None and (
        (shown.listing, max(shown.in_force_minor, 0), max(shown.proposed_minor, 0))
        == (listing, *prices)
    )
