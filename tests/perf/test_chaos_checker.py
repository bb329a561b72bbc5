"""The chaos checker hears a good story and says nothing; each rule has a story that breaks it.

A checker that cannot fail is worthless. ``Story`` tells the checker what a healthy engine would
have written and told; a mutant changes one thing, and exactly its rule must speak.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from engine.decided import (
    QUOTE_DTYPE,
    CatalogueChange,
    Cause,
    Decided,
    Outcome,
    State,
    no_quotes,
    quote_id,
)
from engine.microbatch import Position, Refusal
from gateway.money import rfc3339
from perf.chaos.checker import Answer, Checker, Told
from perf.chaos.rules import RULES
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, encode
from persistence.ports import Record

LOG = bytes(range(16))
ANNA, BERT = b"a" * 16, b"b" * 16
START_MS = 1_800_000_000_000
LISTING = 77
HISTORY_MS = START_MS + 3_600_000
DAY_MS = 86_400_000


class Story:
    """A shard's story as the checker hears it; every step has something that a mutant can bend."""

    def __init__(self) -> None:
        self.checker = Checker(1, generation=1, now_ms=lambda: START_MS)
        self.offset = -1
        self.lane = -1
        self.commands = -1  # offset of the last command given
        self.now_ms = START_MS
        self.after = 0  # the stream's position

    # ----- the decision log ---------------------------------------------------------------------

    def append(self, record: DecisionRecord | EpochStarted) -> None:
        self.offset += 1
        self.now_ms += 100
        self.checker.logged(0, Record(self.offset, self.now_ms, None, encode(record)))

    def reign(self, epoch: int, owner: bytes, clock: Literal["wall", "event"] = "wall") -> None:
        stamp = Stamp(LOG, 1, 0, epoch, owner)
        self.append(EpochStarted(stamp, self.now_ms, "here", clock, -1, 0, -1, 1))

    def decide(
        self,
        seq: int,
        price: int = 0,
        *,
        epoch: int = 1,
        owner: bytes = ANNA,
        last_delta: int = -1,
        decided_ms: int | None = None,
        last_command: int | None = None,
        outcomes: tuple[Outcome, ...] = (),
        refused: tuple[Refusal, ...] = (),
        changes: tuple[CatalogueChange, ...] = (),
        state: State = State.LIVE,
        cause: int = -1,
    ) -> None:
        if seq == 1:
            fields = {"channel": "shop", "sku": "tea"}
            change = CatalogueChange(Position(1, 0, 0), "listing", "anna", fields, LISTING)
            changes = (change,)
        decided = Decided(
            seq=seq,
            last_command=self.commands if last_command is None else last_command,
            last_delta=last_delta,
            decided_ms=self.now_ms if decided_ms is None else decided_ms,
            model="m",
            digest=0,
            quotes=quotes(price, state, cause),
            catalogue=changes,
            exceptions=refused,
            outcomes=outcomes,
        )
        self.append(DecisionRecord(Stamp(LOG, 1, 0, epoch, owner), decided))

    # ----- the delta lane -----------------------------------------------------------------------

    def sell(self, number: int, *, acknowledge: bool = True, observed_ms: int = 0) -> None:
        value = (
            b'{"type":"UnitsSold","retailer":"anna","source":"tills","source_seq":%d,'
            b'"observed_ms":%d}' % (number, observed_ms)
        )
        self.lane += 1
        self.checker.delta_logged(0, Record(self.lane, self.now_ms, b"anna", value))
        if acknowledge:
            self.checker.sent(0, self.lane, value)

    # ----- the commands lane --------------------------------------------------------------------

    def command(self, name: str = "op", kind: str = "PriceUnpinned", **fields: Any) -> int:
        """Put a command into the lane; return its offset."""
        body = {"type": kind, "retailer": "anna", "command_id": name, "observed_ms": self.now_ms}
        if kind.startswith("Price"):
            body |= {"channel": "shop", "sku": "tea"}
        self.commands += 1
        value = json.dumps(body | fields).encode()
        self.checker.command_logged(0, Record(self.commands, self.now_ms, b"anna", value))
        return self.commands

    def pinned(self, name: str, price: int) -> Outcome:
        """Give a pin, and return the outcome that answers it."""
        offset = self.command(name, "PricePinned", price_minor=price, until_ms=START_MS + 60_000)
        return outcome("done", price, name=name, offset=offset, kind="PricePinned")

    def halted(self, channel: str | None = None) -> tuple[int, Outcome]:
        """Give a halt; return its offset and the outcome that answers it."""
        named = {} if channel is None else {"channel": channel}
        offset = self.command("halt", "PublishingHalted", **named)
        return offset, outcome("done", 0, name="halt", offset=offset, kind="PublishingHalted")

    def manual(self, seq: int) -> None:
        """Let the prices of tea wait for a person."""
        change = {"scope": "listing", "key": "shop\x1ftea", "fields": {"approval": "manual"}}
        offset = self.command("policy", "PlanApplied", changes=[change])
        done = outcome("done", 0, name="policy", offset=offset, kind="PlanApplied")
        self.decide(seq, outcomes=(done,), changes=(changed("policy", offset, **change),))

    # ----- what clients hear --------------------------------------------------------------------

    def read(self, seq: int, price: int, **changed: Any) -> None:
        asked_ms = changed.pop("asked_ms", self.now_ms)
        strong, behind = changed.pop("strong", False), changed.pop("behind", False)
        document = shown(seq, price) | {"as_of": rfc3339(self.now_ms), "stale": False} | changed
        self.checker.answered(Answer("anna", asked_ms, document, strong, behind))

    def connect(self, *, resumes: bool = False) -> None:
        self.checker.streams.connected("client", "anna", resumes=resumes)

    def snapshot(self, seq: int, price: int, through: int) -> None:
        self.tell({"type": "snapshot", "last": True, "prices": [shown(seq, price)]}, through)

    def delta(self, seq: int, price: int, *, after: int, through: int) -> None:
        told = {"type": "delta", "after": {"0": after}, "prices": [shown(seq, price)]}
        self.tell(told, through)

    def heartbeat(self, *, after: int, through: int) -> None:
        self.tell({"type": "heartbeat", "after": {"0": after}}, through)

    def tell(self, message: dict[str, Any], through: int) -> None:
        self.checker.streams.told("client", message | {"through": {"0": through}, "token": "t"})

    def final(self, seq: int, price: int) -> dict[str, Any]:
        return shown(seq, price) | {"as_of": rfc3339(self.now_ms), "stale": False}

    def end(self, seq: int = 0, price: int = 0) -> None:
        """Hear the log's last heartbeat, and judge everything."""
        self.checker.settle()
        self.checker.finish()
        if seq:
            self.checker.compare_gateway("anna", [self.final(seq, price)])
            self.checker.streams.compare_at_end()


def quotes(price: int, state: State = State.LIVE, cause: int = -1) -> np.ndarray:
    if not price:
        return no_quotes()
    rows = np.zeros(1, QUOTE_DTYPE)
    rows["listing"], rows["state"] = LISTING, state
    rows["in_force_minor"] = rows["proposed_minor"] = price
    rows["cause_kind"], rows["cause_offset"] = Cause.DELTA if cause >= 0 else Cause.TIMER, cause
    return rows


def shown(seq: int, price: int) -> dict[str, Any]:
    money = {"amount": f"{price // 100}.{price % 100:02d}", "currency": "EUR"}
    return {
        "sku": "tea",
        "channel": "shop",
        "quote_id": quote_id(1, 0, seq, 0),
        "current_price": money,
        "recommended_price": money,
    }


def outcome(
    status: str,
    price: int = 500,
    *,
    name: str = "op",
    offset: int = 0,
    kind: str = "PriceUnpinned",
) -> Outcome:
    """Return the answer to a command about tea."""
    listing = LISTING if kind.startswith("Price") else 0
    position = Position(0, offset, 0)
    return Outcome(name, position, "anna", "key", status, kind, listing=listing, price_minor=price)


def changed(what: str, offset: int, **fields: Any) -> CatalogueChange:
    """Return what a decision says to have changed on a command's word."""
    return CatalogueChange(Position(0, offset, 0), what, "anna", fields)


def began() -> Story:
    """Return a story in which anna reigns, has priced tea at 5.00, and a client hears of it."""
    story = Story()
    story.reign(1, ANNA)
    story.decide(1, 500)
    story.connect()
    story.snapshot(1, 500, 1)
    return story


def test_a_good_life_breaks_no_rule() -> None:
    """Every rule has something to judge here, and nothing to say."""
    story = began()
    story.read(1, 500)
    story.sell(1)
    story.sell(1)  # in doubt, and sent again
    refused = Refusal(Position(1, 1, 0), "duplicate", "was counted before")
    story.command()
    story.decide(2, 510, last_delta=1, refused=(refused,), outcomes=(outcome("done"),))
    story.checker.told(Told("op", 0, story.now_ms, "done", price_minor=500))
    story.read(2, 510)
    story.read(2, 510, strong=True, asked_ms=story.now_ms)
    story.delta(2, 510, after=1, through=2)
    story.reign(2, BERT)
    story.decide(3, 520)  # anna, who was replaced: nobody takes it
    again = outcome("duplicate", offset=story.command())  # in doubt, and sent again
    story.decide(3, 530, epoch=2, owner=BERT, last_delta=1, outcomes=(again,))
    story.connect(resumes=True)
    story.delta(3, 530, after=2, through=3)
    story.read(3, 530)
    story.read(3, 530, asked_ms=story.now_ms + 60_000, stale=True)
    story.read(3, 530, asked_ms=story.now_ms + 3_000, behind=True)
    story.decide(4, epoch=2, owner=BERT, last_delta=1)
    story.heartbeat(after=3, through=4)
    story.end(3, 530)
    assert story.checker.violations == []
    assert story.checker.truths[0].ignored == 1
    assert story.checker.truths[0].decisions == 4
    assert story.checker.judged["reads"] == 5


# ----- one story a rule, with what is wrong in it -------------------------------------------------


def decision_lost(story: Story) -> None:
    story.decide(3)


def decision_doubled(story: Story) -> None:
    story.decide(2, 510)
    story.decide(2, 510)


def decision_doubled_by_the_next_reign(story: Story) -> None:
    story.decide(2, 510)
    story.reign(2, BERT)
    story.decide(2, 520, epoch=2, owner=BERT)


def decision_reordered(story: Story) -> None:
    story.decide(2, decided_ms=START_MS - 5)


def decision_consumed_backwards(story: Story) -> None:
    story.sell(1, acknowledge=False)
    story.decide(2, last_delta=0)
    story.decide(3, last_delta=-1)


def clock_lied(story: Story) -> None:
    story.decide(2, decided_ms=story.now_ms + 3_600_000)


def lives_by_events(story: Story) -> None:
    """Let bert reign by the time of events, and decide a sale of an hour later."""
    story.reign(2, BERT, clock="event")
    story.sell(1, observed_ms=HISTORY_MS)
    story.decide(2, epoch=2, owner=BERT, last_delta=0, decided_ms=HISTORY_MS)


def time_that_no_fact_told(story: Story) -> None:
    lives_by_events(story)
    story.decide(3, epoch=2, owner=BERT, last_delta=0, decided_ms=HISTORY_MS + 1)


def time_behind_its_facts(story: Story) -> None:
    lives_by_events(story)
    story.sell(2, observed_ms=HISTORY_MS + 500)
    story.decide(3, epoch=2, owner=BERT, last_delta=1, decided_ms=HISTORY_MS)
    story.decide(4, epoch=2, owner=BERT, last_delta=1, decided_ms=HISTORY_MS + 500)


def command_that_bears_the_machines_time(story: Story) -> None:
    """The decision is not heard after the fact that it consumed, but before."""
    story.reign(2, BERT, clock="event")
    story.command()
    done = (outcome("done"),)
    story.decide(2, epoch=2, owner=BERT, last_delta=0, decided_ms=HISTORY_MS + 9, outcomes=done)
    story.sell(1, observed_ms=HISTORY_MS)


def reader_disagrees(story: Story) -> None:
    """Production's reader would have to err; here the truth is bent instead."""
    story.reign(2, BERT)
    story.checker.truths[0].epoch, story.checker.truths[0].owner = 1, ANNA
    story.decide(2)


def price_not_in_log(story: Story) -> None:
    story.read(1, 499)
    story.decide(2)


def price_of_a_quote_that_never_was(story: Story) -> None:
    story.read(9, 500, as_of="1970-01-01T00:00:00.000Z", stale=True)
    story.decide(2)


def price_of_a_stranger(story: Story) -> None:
    story.read(1, 500, sku="coffee")
    story.decide(2)


def replaced_owner_believed(story: Story) -> None:
    story.reign(2, BERT)
    story.decide(2, 666)
    story.decide(2, 510, epoch=2, owner=BERT)
    story.read(2, 666)
    story.decide(3, epoch=2, owner=BERT)


def price_not_newest(story: Story) -> None:
    story.decide(2, 510)
    story.read(1, 500)
    story.decide(3)


def as_of_not_in_log(story: Story) -> None:
    story.read(1, 500, as_of=rfc3339(story.now_ms - 1))
    story.decide(2)


def stale_unmarked(story: Story) -> None:
    story.read(1, 500, asked_ms=story.now_ms + 2_001)
    story.decide(2)


def strong_read_old(story: Story) -> None:
    story.decide(2, 510)
    story.read(1, 500, strong=True, asked_ms=story.now_ms + 1)
    story.decide(3)


def outcome_not_in_log(story: Story) -> None:
    story.checker.told(Told("nobody", 0, story.now_ms, "done"))
    story.decide(2)


def outcome_of_another_kind(story: Story) -> None:
    story.command()
    story.decide(2, outcomes=(outcome("refused"),))
    story.checker.told(Told("op", 0, story.now_ms, "done"))
    story.decide(3)


def outcome_with_another_price(story: Story) -> None:
    story.command()
    story.decide(2, outcomes=(outcome("done", 500),))
    story.checker.told(Told("op", 0, story.now_ms, "done", price_minor=600))
    story.decide(3)


def outcome_changed(story: Story) -> None:
    story.command()
    story.decide(2, outcomes=(outcome("done"),))
    story.decide(3, outcomes=(outcome("refused", offset=story.command()),))


def command_lost(story: Story) -> None:
    story.checker.told(Told("op", 0, story.now_ms, "pending"))
    story.decide(2)


def command_lost_in_the_lane(story: Story) -> None:
    story.command()
    story.decide(2, last_command=-1)


def command_unanswered(story: Story) -> None:
    """One of two outcomes is lost."""
    story.command("first")
    story.command("second")
    story.decide(2, outcomes=(outcome("done", name="second", offset=1),))


def command_answered_late(story: Story) -> None:
    story.command()
    story.decide(2)
    story.decide(3, outcomes=(outcome("done"),))


def command_doubled(story: Story) -> None:
    """A decision answers one command twice."""
    story.command()
    story.decide(2, outcomes=(outcome("done"), outcome("done")))


def command_doubled_by_a_later_decision(story: Story) -> None:
    story.command()
    story.decide(2, outcomes=(outcome("done"),))
    story.decide(3, outcomes=(outcome("done"),))


def command_takes_effect_again(story: Story) -> None:
    first, done = story.halted()
    story.decide(2, outcomes=(done,), changes=(changed("halt", first),))
    again, done = story.halted()
    story.decide(3, outcomes=(done,), changes=(changed("halt", again),))


def command_moves_a_price_again(story: Story) -> None:
    done = story.pinned("pin", 490)
    story.decide(2, 490, state=State.PINNED, cause=0, outcomes=(done,))
    story.decide(3, 490, state=State.PINNED, cause=1, outcomes=(story.pinned("pin", 490),))


def command_reordered(story: Story) -> None:
    """Two outcomes stand the other way round."""
    story.command("first")
    story.command("second")
    first, second = (
        outcome("done", name=name, offset=offset) for offset, name in enumerate(("first", "second"))
    )
    story.decide(2, outcomes=(second, first))


def command_given_later_stands_before(story: Story) -> None:
    story.command("second")
    story.command("first")
    names = ("second", "first")
    answers = tuple(outcome("done", name=name, offset=at) for at, name in enumerate(names))
    story.decide(2, outcomes=answers)
    story.checker.told(Told("first", 0, START_MS + 20, "done", asked_ms=START_MS + 10))
    story.checker.told(Told("second", 0, START_MS + 40, "done", asked_ms=START_MS + 30))
    story.decide(3)


def outcome_unasked(story: Story) -> None:
    story.decide(2, outcomes=(outcome("done"),))


def outcome_of_another_command(story: Story) -> None:
    story.command("op")
    story.decide(2, outcomes=(outcome("done", name="another"),))


def outcome_before_its_command_is_consumed(story: Story) -> None:
    story.command()
    story.decide(2, last_command=-1, outcomes=(outcome("done"),))
    story.decide(3)


def command_consumed_ahead(story: Story) -> None:
    story.decide(2, last_command=3)


def halt_without_a_change(story: Story) -> None:
    _, done = story.halted()
    story.decide(2, outcomes=(done,))


def halt_of_another_channel(story: Story) -> None:
    offset, done = story.halted("shop")
    halt = changed("halt", offset, channel="marketplace")
    story.decide(2, outcomes=(done,), changes=(halt,))


def halt_that_was_refused(story: Story) -> None:
    offset, done = story.halted()
    refused = msgspec.structs.replace(done, status="refused")
    story.decide(2, outcomes=(refused,), changes=(changed("halt", offset),))


def quote_in_spite_of_a_halt(story: Story) -> None:
    offset, done = story.halted("shop")
    story.decide(2, outcomes=(done,), changes=(changed("halt", offset, channel="shop"),))
    story.decide(3, 510)
    story.delta(3, 510, after=1, through=3)


def price_moves_in_spite_of_a_halt(story: Story) -> None:
    offset, done = story.halted()
    story.decide(2, outcomes=(done,), changes=(changed("halt", offset),))
    story.decide(3, 510, state=State.HALTED)


def halt_that_nobody_ordered(story: Story) -> None:
    story.decide(2, 500, state=State.HALTED)


def halt_goes_on_after_resuming(story: Story) -> None:
    offset, done = story.halted()
    story.decide(2, 500, state=State.HALTED, outcomes=(done,), changes=(changed("halt", offset),))
    offset = story.command("resume", "PublishingResumed")
    done = outcome("done", 0, name="resume", offset=offset, kind="PublishingResumed")
    story.decide(3, outcomes=(done,), changes=(changed("resume", offset),))
    story.decide(4, 500, state=State.HALTED)


def pin_at_another_price(story: Story) -> None:
    story.decide(2, 480, state=State.PINNED, outcomes=(story.pinned("pin", 490),))


def pin_ignored(story: Story) -> None:
    story.decide(2, 490, state=State.PINNED, outcomes=(story.pinned("pin", 490),))
    story.decide(3, 510)


def pin_that_nobody_gave(story: Story) -> None:
    story.decide(2, 500, state=State.PINNED)


def pin_that_does_not_end(story: Story) -> None:
    story.decide(2, 490, state=State.PINNED, outcomes=(story.pinned("pin", 490),))
    story.now_ms = START_MS + 60_000
    story.decide(3, 490, state=State.PINNED)


def price_moves_without_the_person_it_waits_for(story: Story) -> None:
    story.manual(2)
    story.decide(3, 510)


def approval_that_does_nothing(story: Story) -> None:
    offset = story.command("op", "PriceApproved")
    story.decide(2, outcomes=(outcome("done", 510, offset=offset, kind="PriceApproved"),))


def policy_of_another_listing(story: Story) -> None:
    change = {"scope": "listing", "key": "shop\x1ftea", "fields": {"approval": "manual"}}
    offset = story.command("policy", "PlanApplied", changes=[change])
    done = outcome("done", 0, name="policy", offset=offset, kind="PlanApplied")
    told = changed("policy", offset, **change | {"key": "shop\x1fcoffee"})
    story.decide(2, outcomes=(done,), changes=(told,))


def delta_lost(story: Story) -> None:
    story.checker.sent(0, 5, b"{}")


def delta_overwritten(story: Story) -> None:
    story.sell(1, acknowledge=False)
    story.checker.sent(0, 0, b"{}")
    story.decide(2, last_delta=0)


def delta_not_consumed(story: Story) -> None:
    story.sell(1)
    story.decide(2)


def sale_refused(story: Story) -> None:
    story.sell(1)
    refused = Refusal(Position(1, 0, 0), "late", "too old")
    story.decide(2, last_delta=0, refused=(refused,))


def delta_twice(story: Story) -> None:
    story.sell(1)
    story.sell(1)
    story.decide(2, last_delta=1)


def delta_twice_heard_late(story: Story) -> None:
    story.decide(2, last_delta=1)
    story.sell(1)
    story.sell(1)


def consumed_ahead(story: Story) -> None:
    story.decide(2, last_delta=4)


def stream_gap(story: Story) -> None:
    story.decide(2, 510)
    story.decide(3, 520)
    story.delta(3, 520, after=2, through=3)


def stream_gap_after_resuming(story: Story) -> None:
    story.decide(2)
    story.connect(resumes=True)
    story.heartbeat(after=2, through=2)


def stream_without_a_snapshot(story: Story) -> None:
    story.connect()
    story.heartbeat(after=1, through=1)


def stream_goes_back(story: Story) -> None:
    story.heartbeat(after=1, through=0)


def stream_missed(story: Story) -> None:
    story.decide(2, 510)
    story.heartbeat(after=1, through=2)


def snapshot_missed(story: Story) -> None:
    story.decide(2, 510)
    story.connect()
    story.snapshot(1, 500, 2)


def stream_told_a_wrong_price(story: Story) -> None:
    story.decide(2, 510)
    story.delta(2, 511, after=1, through=2)


def stream_differs(story: Story) -> None:
    story.decide(2, 510)
    story.delta(2, 510, after=1, through=2)
    story.decide(3, 520)
    story.heartbeat(after=2, through=3)
    story.checker.streams.compare_at_end()
    story.checker.streams._covered.clear()  # that the heartbeat missed it is another rule's


def gateway_differs(story: Story) -> None:
    story.decide(2, 510)
    story.checker.compare_gateway("anna", [story.final(1, 500)])


def gateway_forgot(story: Story) -> None:
    story.checker.compare_gateway("anna", [])


def gateway_forgot_a_halt(story: Story) -> None:
    offset, done = story.halted()
    story.decide(2, outcomes=(done,), changes=(changed("halt", offset),))
    story.checker.compare_standing("anna", {"halts": []}, [])


def gateway_forgot_a_policy(story: Story) -> None:
    story.manual(2)
    story.checker.compare_standing("anna", {"halts": []}, [])


MUTANTS: dict[Callable[[Story], None], str] = {
    decision_lost: "decision_lost",
    decision_doubled: "decision_doubled",
    decision_doubled_by_the_next_reign: "decision_doubled",
    decision_reordered: "decision_reordered",
    decision_consumed_backwards: "decision_reordered",
    clock_lied: "clock_lied",
    time_that_no_fact_told: "clock_lied",
    time_behind_its_facts: "clock_lied",
    command_that_bears_the_machines_time: "clock_lied",
    reader_disagrees: "reader_disagrees",
    price_not_in_log: "price_not_in_log",
    price_of_a_quote_that_never_was: "price_not_in_log",
    price_of_a_stranger: "price_not_in_log",
    replaced_owner_believed: "replaced_owner_believed",
    price_not_newest: "price_not_newest",
    as_of_not_in_log: "as_of_not_in_log",
    stale_unmarked: "stale_unmarked",
    strong_read_old: "strong_read_old",
    outcome_not_in_log: "outcome_not_in_log",
    outcome_of_another_kind: "outcome_not_in_log",
    outcome_with_another_price: "outcome_not_in_log",
    outcome_changed: "outcome_changed",
    command_lost: "command_lost",
    command_lost_in_the_lane: "command_lost",
    command_unanswered: "command_unanswered",
    command_answered_late: "command_unanswered",
    command_doubled: "command_doubled",
    command_doubled_by_a_later_decision: "command_doubled",
    command_takes_effect_again: "command_doubled",
    command_moves_a_price_again: "command_doubled",
    command_reordered: "command_reordered",
    command_given_later_stands_before: "command_reordered",
    outcome_unasked: "outcome_unasked",
    outcome_of_another_command: "outcome_unasked",
    outcome_before_its_command_is_consumed: "outcome_unasked",
    command_consumed_ahead: "consumed_ahead",
    halt_without_a_change: "effect_differs",
    halt_of_another_channel: "effect_differs",
    halt_that_was_refused: "effect_differs",
    quote_in_spite_of_a_halt: "effect_differs",
    price_moves_in_spite_of_a_halt: "effect_differs",
    halt_that_nobody_ordered: "effect_differs",
    halt_goes_on_after_resuming: "effect_differs",
    pin_at_another_price: "effect_differs",
    pin_ignored: "effect_differs",
    pin_that_nobody_gave: "effect_differs",
    pin_that_does_not_end: "effect_differs",
    price_moves_without_the_person_it_waits_for: "effect_differs",
    approval_that_does_nothing: "effect_differs",
    policy_of_another_listing: "effect_differs",
    delta_lost: "delta_lost",
    delta_overwritten: "delta_lost",
    delta_not_consumed: "delta_not_consumed",
    sale_refused: "delta_not_consumed",
    delta_twice: "delta_twice",
    delta_twice_heard_late: "delta_twice",
    consumed_ahead: "consumed_ahead",
    stream_gap: "stream_gap",
    stream_gap_after_resuming: "stream_gap",
    stream_without_a_snapshot: "stream_gap",
    stream_goes_back: "stream_gap",
    stream_missed: "stream_missed",
    snapshot_missed: "stream_missed",
    stream_told_a_wrong_price: "price_not_in_log",
    stream_differs: "stream_differs",
    gateway_differs: "gateway_differs",
    gateway_forgot: "gateway_differs",
    gateway_forgot_a_halt: "gateway_differs",
    gateway_forgot_a_policy: "gateway_differs",
}


def test_commands_that_do_what_they_say_break_no_rule() -> None:
    """Halt, resume, pin, its end, a policy, and an approval; each of them shows, and is judged."""
    story = began()
    checker = story.checker
    offset, done = story.halted("shop")
    halt = changed("halt", offset, channel="shop")
    story.decide(2, 500, state=State.HALTED, outcomes=(done,), changes=(halt,))
    story.decide(3, outcomes=(story.halted("shop")[1],))  # in doubt, and sent again
    offset = story.command("resume", "PublishingResumed")
    done = outcome("done", 0, name="resume", offset=offset, kind="PublishingResumed")
    resume = changed("resume", offset, breaker=False)
    story.decide(4, 500, outcomes=(done,), changes=(resume,))
    story.decide(5, 490, state=State.PINNED, outcomes=(story.pinned("pin", 490),))
    story.now_ms = START_MS + 60_000
    story.decide(6, 505)
    story.manual(7)
    story.decide(8, 505, state=State.PENDING)
    offset = story.command("op", "PriceApproved")
    done = outcome("done", 515, offset=offset, kind="PriceApproved")
    story.decide(9, 515, outcomes=(done,), cause=offset)
    story.checker.told(Told("op", 0, story.now_ms, "done", 515, asked_ms=START_MS + 60_100))
    trip = CatalogueChange(Position(2, 10, 0), "breaker", "anna", {})
    story.decide(10, changes=(trip,))
    story.decide(11, 515, state=State.HALTED)
    policy = {"key": "shop\x1ftea", "fields": {"approval": "manual"}}
    checker.compare_standing("anna", {"halts": []}, [policy])
    checker.settle()
    checker.streams.subscribers.clear()
    checker.finish()
    assert checker.violations == []
    assert checker.judged["commands followed"] == 5
    assert checker.judged["command records"] == checker.judged["command outcomes"] == 6
    assert checker.judged["quotes while halted"] == 2
    assert checker.judged["quotes while pinned"] == 1
    assert checker.judged["quotes while approvals are manual"] == 3
    assert checker.judged["approvals in force"] == 1
    assert checker.commands[0].repeated == 1
    assert checker.commands[0].done == Counter(
        ("PublishingHalted", "PublishingResumed", "PricePinned", "PlanApplied", "PriceApproved")
    )


def test_a_decision_waits_for_the_commands_that_it_consumed() -> None:
    """The checker may hear of a decision first; that is a race, no violation."""
    story = began()
    story.decide(2, last_command=0, outcomes=(outcome("done"),))
    assert story.checker.violations == []
    story.command()
    story.end()
    assert story.checker.violations == []
    assert story.checker.judged["command outcomes"] == 1


AFTER = {"store_differs", "replay_differs", "stopped_for_good", "not_recovered", "process_left"}
"""Rules about the whole, judged when the run is over: tests/perf/test_chaos_verdict.py."""
LEARNING = {"nothing_learnt"}
"""And where prices are learnt: tests/perf/test_chaos_learning.py."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_rule_speaks_when_it_is_broken(mutant: Callable[[Story], None]) -> None:
    story = began()
    mutant(story)
    story.end()
    assert set(story.checker.broken) == {MUTANTS[mutant]}, story.checker.violations


def test_no_rule_is_without_a_mutant() -> None:
    assert set(MUTANTS.values()) | AFTER | LEARNING == set(RULES)


def test_time_may_go_by_events() -> None:
    """However far they lie from the machine's, and whichever log is heard first."""
    story = began()
    lives_by_events(story)
    story.decide(3, epoch=2, owner=BERT, last_delta=1, decided_ms=HISTORY_MS + 9 * DAY_MS)
    story.sell(2, observed_ms=HISTORY_MS + 9 * DAY_MS)
    story.command()
    done = (outcome("done"),)
    story.decide(
        4, epoch=2, owner=BERT, last_delta=2, decided_ms=HISTORY_MS + 9 * DAY_MS, outcomes=done
    )
    story.sell(3, observed_ms=HISTORY_MS)
    story.end()
    assert story.checker.violations == []
    assert story.checker.judged["times of events"] == 3


def given_again(story: Story, after_ms: int) -> None:
    """Give a halt, resume, and give the very same halt again so much later by the shard's time."""
    offset, done = story.halted()
    story.decide(2, outcomes=(done,), changes=(changed("halt", offset),))
    offset = story.command("resume", "PublishingResumed")
    done = outcome("done", 0, name="resume", offset=offset, kind="PublishingResumed")
    story.decide(3, outcomes=(done,), changes=(changed("resume", offset),))
    story.now_ms += after_ms
    offset, done = story.halted()
    story.decide(4, outcomes=(done,), changes=(changed("halt", offset),))
    story.decide(5, 500, state=State.HALTED)


def test_a_command_whose_answer_is_forgotten_is_another() -> None:
    """Answers are remembered for a day of the shard's time, and no longer."""
    story = began()
    given_again(story, DAY_MS)
    story.end()
    assert story.checker.violations == []
    story = began()
    given_again(story, DAY_MS - 1_000)
    story.end()
    assert set(story.checker.broken) == {"command_doubled", "effect_differs"}


def test_a_claim_that_the_log_has_not_reached_waits() -> None:
    """A reader may be ahead of the checker; that is a race, no violation."""
    story = began()
    story.read(2, 510, as_of=rfc3339(story.now_ms + 100))
    story.delta(2, 510, after=1, through=2)
    story.checker.told(Told("op", 0, story.now_ms + 100, "done"))
    story.checker.settle()
    assert story.checker.violations == []
    story.command()
    story.decide(2, 510, outcomes=(outcome("done"),))
    story.decide(3)
    story.checker.settle()
    story.end()
    assert story.checker.violations == []
