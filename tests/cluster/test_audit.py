"""The audit of a decision log counts what chaos may never cause, by rules of its own."""

import pytest

from perf.chaos_rows import Audit, ShardAudit
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import LogPosition
from persistence.ports import Record
from tests.persistence.test_decision_reader import A, B, decision, stamp, start

OLD, NEW = stamp(1, A), stamp(2, B)


def audited(*values: bytes) -> Audit:
    found = Audit()
    shard = ShardAudit(found, shard=0, generation=1)
    for offset, value in enumerate(values):
        shard.take(Record(offset, 10 * offset, None, value))
    return found


def test_a_clean_succession_is_clean() -> None:
    found = audited(
        start(OLD), decision(OLD, 1), start(NEW, from_offset=1), decision(NEW, 2), decision(NEW, 3)
    )
    assert found == Audit(decisions=3, epochs=2)


def test_a_zombies_records_are_counted_and_taken_by_nobody() -> None:
    found = audited(
        start(OLD),
        decision(OLD, 1),
        start(NEW, from_offset=1),
        decision(OLD, 2),
        decision(NEW, 2),
        decision(OLD, 3),
    )
    assert found == Audit(decisions=2, epochs=2, ignored=2)


def test_the_loser_of_a_tie_is_a_replaced_owner() -> None:
    loser = stamp(1, B)
    found = audited(start(OLD), start(loser), decision(loser, 1), decision(OLD, 1))
    assert found == Audit(decisions=1, epochs=1, ignored=1)


def test_a_decision_written_twice_in_one_reign_is_doubled() -> None:
    found = audited(start(OLD), decision(OLD, 1), decision(OLD, 1))
    assert (found.decisions, found.doubled) == (1, 1)


def test_a_successor_that_repeats_what_counts_has_doubled_it() -> None:
    found = audited(start(OLD), decision(OLD, 1), start(NEW, from_offset=1), decision(NEW, 1))
    assert (found.decisions, found.doubled) == (1, 1)


def test_a_missing_decision_is_a_gap() -> None:
    assert audited(start(OLD), decision(OLD, 1), decision(OLD, 3)).gaps == 1


def test_a_reader_that_takes_a_zombies_decision_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reader of production, broken: it forgets who reigns."""

    def everything(reader: DecisionReader, record: Record) -> Accepted | None:
        one = honest(reader, record)
        if one is not None or reader.log_id == b"":
            return one
        from persistence.decision_records import DecisionRecord, decode

        found = decode(record.value)
        assert isinstance(found, DecisionRecord)
        return Accepted(
            position=LogPosition(
                reader.log_id, record.offset, found.stamp.epoch, found.stamp.owner, reader.seq
            ),
            appended_ms=record.appended_ms,
            stamp=found.stamp,
            decided=found.decided,
        )

    honest = DecisionReader.accept
    monkeypatch.setattr(DecisionReader, "accept", everything)
    found = audited(
        start(OLD), decision(OLD, 1), start(NEW, from_offset=1), decision(OLD, 2), decision(NEW, 2)
    )
    assert (found.ignored, found.by_replaced, found.read_otherwise) == (1, 1, 1)
