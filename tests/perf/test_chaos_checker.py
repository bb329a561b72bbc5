"""The chaos checker hears a good story and says nothing; each rule has a story that breaks it.

A checker that cannot fail is worthless. ``Story`` tells the checker what a healthy engine would
have written and told; a mutant changes one thing, and exactly its rule must speak.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.decided import (
    QUOTE_DTYPE,
    CatalogueChange,
    Decided,
    Outcome,
    State,
    no_quotes,
    quote_id,
)
from engine.microbatch import Position, Refusal
from gateway.money import rfc3339
from perf.chaos.checker import RULES, Answer, Checker, Told
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, encode
from persistence.ports import Record

LOG = bytes(range(16))
ANNA, BERT = b"a" * 16, b"b" * 16
START_MS = 1_800_000_000_000
LISTING = 77


class Story:
    """A shard's story as the checker hears it; every step has something that a mutant can bend."""

    def __init__(self) -> None:
        self.checker = Checker(1, generation=1, now_ms=lambda: START_MS)
        self.offset = -1
        self.lane = -1
        self.now_ms = START_MS
        self.after = 0  # the stream's position

    # ----- the decision log ---------------------------------------------------------------------

    def append(self, record: DecisionRecord | EpochStarted) -> None:
        self.offset += 1
        self.now_ms += 100
        self.checker.logged(0, Record(self.offset, self.now_ms, None, encode(record)))

    def reign(self, epoch: int, owner: bytes) -> None:
        stamp = Stamp(LOG, 1, 0, epoch, owner)
        self.append(EpochStarted(stamp, self.now_ms, "here", "wall", -1, 0, -1, 1))

    def decide(
        self,
        seq: int,
        price: int = 0,
        *,
        epoch: int = 1,
        owner: bytes = ANNA,
        last_delta: int = -1,
        decided_ms: int | None = None,
        outcomes: tuple[Outcome, ...] = (),
        refused: tuple[Refusal, ...] = (),
    ) -> None:
        catalogue: tuple[CatalogueChange, ...] = ()
        if seq == 1:
            fields = {"channel": "shop", "sku": "tea"}
            change = CatalogueChange(Position(1, 0, 0), "listing", "anna", fields, LISTING)
            catalogue = (change,)
        decided = Decided(
            seq=seq,
            last_command=-1,
            last_delta=last_delta,
            decided_ms=self.now_ms if decided_ms is None else decided_ms,
            model="m",
            digest=0,
            quotes=quotes(price),
            catalogue=catalogue,
            exceptions=refused,
            outcomes=outcomes,
        )
        self.append(DecisionRecord(Stamp(LOG, 1, 0, epoch, owner), decided))

    # ----- the delta lane -----------------------------------------------------------------------

    def sell(self, number: int, *, acknowledge: bool = True) -> None:
        value = b'{"type":"UnitsSold","retailer":"anna","source":"tills","source_seq":%d}' % number
        self.lane += 1
        self.checker.delta_logged(0, Record(self.lane, self.now_ms, b"anna", value))
        if acknowledge:
            self.checker.sent(0, self.lane, value)

    # ----- what clients hear --------------------------------------------------------------------

    def read(self, seq: int, price: int, **changed: Any) -> None:
        asked_ms = changed.pop("asked_ms", self.now_ms)
        strong = changed.pop("strong", False)
        document = shown(seq, price) | {"as_of": rfc3339(self.now_ms), "stale": False} | changed
        self.checker.answered(Answer("anna", asked_ms, document, strong))

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


def quotes(price: int) -> np.ndarray:
    if not price:
        return no_quotes()
    rows = np.zeros(1, QUOTE_DTYPE)
    rows["listing"], rows["state"] = LISTING, State.LIVE
    rows["in_force_minor"] = rows["proposed_minor"] = price
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


def outcome(status: str, price: int = 500) -> Outcome:
    return Outcome("op", Position(0, 0, 0), "anna", "key", status, "PricePinned", price_minor=price)


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
    story.decide(2, 510, last_delta=1, refused=(refused,), outcomes=(outcome("done"),))
    story.checker.told(Told("op", 0, story.now_ms, "done", price_minor=500))
    story.read(2, 510)
    story.read(2, 510, strong=True, asked_ms=story.now_ms)
    story.delta(2, 510, after=1, through=2)
    story.reign(2, BERT)
    story.decide(3, 520)  # anna, who was replaced: nobody takes it
    story.decide(3, 530, epoch=2, owner=BERT, last_delta=1, outcomes=(outcome("duplicate"),))
    story.connect(resumes=True)
    story.delta(3, 530, after=2, through=3)
    story.read(3, 530)
    story.read(3, 530, asked_ms=story.now_ms + 60_000, stale=True)
    story.decide(4, epoch=2, owner=BERT, last_delta=1)
    story.heartbeat(after=3, through=4)
    story.end(3, 530)
    assert story.checker.violations == []
    assert story.checker.truths[0].ignored == 1
    assert story.checker.truths[0].decisions == 4
    assert story.checker.judged["reads"] == 4


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
    story.decide(2, outcomes=(outcome("refused"),))
    story.checker.told(Told("op", 0, story.now_ms, "done"))
    story.decide(3)


def outcome_with_another_price(story: Story) -> None:
    story.decide(2, outcomes=(outcome("done", 500),))
    story.checker.told(Told("op", 0, story.now_ms, "done", price_minor=600))
    story.decide(3)


def outcome_changed(story: Story) -> None:
    story.decide(2, outcomes=(outcome("done"),))
    story.decide(3, outcomes=(outcome("refused"),))


def command_lost(story: Story) -> None:
    story.checker.told(Told("op", 0, story.now_ms, "pending"))
    story.decide(2)


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


MUTANTS: dict[Callable[[Story], None], str] = {
    decision_lost: "decision_lost",
    decision_doubled: "decision_doubled",
    decision_doubled_by_the_next_reign: "decision_doubled",
    decision_reordered: "decision_reordered",
    decision_consumed_backwards: "decision_reordered",
    clock_lied: "clock_lied",
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
}

AFTER = {"store_differs", "replay_differs", "stopped_for_good", "not_recovered", "process_left"}
"""Rules about the whole, judged when the run is over: tests/perf/test_chaos_verdict.py."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_rule_speaks_when_it_is_broken(mutant: Callable[[Story], None]) -> None:
    story = began()
    mutant(story)
    story.end()
    assert set(story.checker.broken) == {MUTANTS[mutant]}, story.checker.violations


def test_no_rule_is_without_a_mutant() -> None:
    assert set(MUTANTS.values()) | AFTER == set(RULES)


def test_a_claim_that_the_log_has_not_reached_waits() -> None:
    """A reader may be ahead of the checker; that is a race, no violation."""
    story = began()
    story.read(2, 510, as_of=rfc3339(story.now_ms + 100))
    story.delta(2, 510, after=1, through=2)
    story.checker.told(Told("op", 0, story.now_ms + 100, "done"))
    story.checker.settle()
    assert story.checker.violations == []
    story.decide(2, 510, outcomes=(outcome("done"),))
    story.decide(3)
    story.checker.settle()
    story.end()
    assert story.checker.violations == []
