"""Which records of a decision log count, record by record."""

import pytest

from engine.decided import Decided, no_quotes
from engine.errors import CorruptRecord, LogFault, SequenceGap, SettingsRefused
from persistence.decision_reader import DecisionReader
from persistence.decision_records import (
    DecisionRecord,
    EpochStarted,
    LogPosition,
    Stamp,
    Trying,
    encode,
)
from persistence.ports import Record

LOG_ID, OTHER_LOG = b"l" * 16, b"m" * 16
A, B = b"a" * 16, b"b" * 16


def stamp(epoch: int, owner: bytes, log_id: bytes = LOG_ID, generation: int = 1) -> Stamp:
    return Stamp(log_id=log_id, generation=generation, shard=0, epoch=epoch, owner=owner)


def start(by: Stamp, *, first_offset: int = -1, from_offset: int = -1) -> bytes:
    return encode(
        EpochStarted(
            stamp=by,
            started_ms=1,
            replay_domain="toy",
            clock="wall",
            from_offset=from_offset,
            from_seq=0,
            first_offset=first_offset,
            partitions=1,
        )
    )


def decision(by: Stamp, seq: int) -> bytes:
    decided = Decided(
        seq=seq,
        last_command=-1,
        last_delta=seq,
        decided_ms=seq,
        model="toy",
        digest=seq,
        quotes=no_quotes(),
    )
    return encode(DecisionRecord(by, decided))


def reader(position: LogPosition | None = None, after: int = -1) -> DecisionReader:
    return DecisionReader(position, shard=0, generation=1, after=after)


def accepted(reading: DecisionReader, *values: bytes) -> list[tuple[int, int]]:
    """Return (offset, seq) of the decisions that count."""
    found = []
    first = reading.offset + 1
    for offset, value in enumerate(values, first):
        one = reading.accept(Record(offset, 10 * offset, None, value))
        if one is not None and one.decided is not None:
            found.append((one.offset, one.decided.seq))
    return found


def test_the_highest_epoch_counts() -> None:
    old, new = stamp(1, A), stamp(2, B)
    assert accepted(
        reader(),
        start(old),
        decision(old, 1),
        start(new, from_offset=1),
        decision(old, 2),  # by a zombie
        decision(new, 2),
    ) == [(1, 1), (4, 2)]


def test_a_late_record_of_the_same_owner_does_not_count_either() -> None:
    """It was in doubt, and its owner has sealed again since."""
    before, since = stamp(1, A), stamp(2, A)
    assert accepted(reader(), start(before), start(since, from_offset=0), decision(before, 1)) == []


def test_of_two_starts_the_first_in_the_log_counts() -> None:
    first, second = stamp(1, A), stamp(1, B)
    assert accepted(
        reader(), start(first), start(second), decision(second, 1), decision(first, 1)
    ) == [(3, 1)]


def test_what_was_seen_is_dropped() -> None:
    owner = stamp(1, A)
    assert accepted(
        reader(), start(owner), decision(owner, 1), decision(owner, 1), decision(owner, 2)
    ) == [(1, 1), (3, 2)]


def test_a_gap_stops() -> None:
    owner = stamp(1, A)
    with pytest.raises(SequenceGap, match="seq 3, expected 2"):
        accepted(reader(), start(owner), decision(owner, 1), decision(owner, 3))


def test_a_reader_goes_on_where_another_stopped() -> None:
    owner, loser = stamp(3, A), stamp(3, B)
    position = LogPosition(LOG_ID, 40, 3, A, 17)
    assert accepted(
        reader(position), start(loser, from_offset=30), decision(owner, 17), decision(owner, 18)
    ) == [(43, 18)]


def test_a_decision_whose_start_is_missing_stops() -> None:
    position = LogPosition(LOG_ID, 40, 3, A, 17)
    with pytest.raises(LogFault, match="never started"):
        accepted(reader(position), decision(stamp(4, B), 18))


def test_a_reader_in_the_middle_waits_for_a_start() -> None:
    owner = stamp(3, A)
    reading = reader(after=99)
    values = decision(owner, 17), start(owner, first_offset=50, from_offset=98)
    assert accepted(reading, *values, decision(owner, 18), decision(owner, 19)) == [
        (102, 18),
        (103, 19),
    ]
    assert reading.position == LogPosition(LOG_ID, 103, 3, A, 19)


def test_the_lowest_first_offset_wins_a_tie_whose_beginning_is_gone() -> None:
    winner, loser = stamp(3, A), stamp(3, B)
    reading = reader(after=99)
    assert accepted(
        reading,
        start(loser, from_offset=98),
        decision(winner, 18),
        start(winner, first_offset=99, from_offset=98),
        decision(winner, 19),
    ) == [(103, 19)]


def test_a_second_first_owner_drops_its_name_for_the_log() -> None:
    """Two that start on an empty log both name it; the second's later records bear the first's."""
    first, second = stamp(1, A), stamp(2, B, OTHER_LOG)
    since = stamp(2, B)
    assert accepted(
        reader(), start(first), decision(first, 1), start(second), decision(since, 2)
    ) == [(1, 1), (3, 2)]


def test_nor_does_its_name_mislead_a_reader_in_the_middle() -> None:
    """Its start may be the first that such a reader meets; its decisions tell the log's name."""
    reading = reader(after=9)
    owner = stamp(2, B)
    assert accepted(reading, start(stamp(2, B, OTHER_LOG)), decision(owner, 7)) == [(11, 7)]
    assert reading.position == LogPosition(LOG_ID, 11, 2, B, 7)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (decision(stamp(1, A, OTHER_LOG), 1), LogFault),
        (start(stamp(2, B, OTHER_LOG), from_offset=0), LogFault),
        (decision(stamp(1, A, generation=2), 1), SettingsRefused),
        (decision(stamp(1, A), 1)[:-1] + b"x", CorruptRecord),
        (b"{}", CorruptRecord),
    ],
)
def test_what_contradicts_the_log_stops(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        accepted(reader(), start(stamp(1, A)), value)


def test_attempts_are_told() -> None:
    owner = stamp(1, A)
    reading = reader()
    accepted(reading, start(owner))
    one = reading.accept(Record(1, 0, None, encode(Trying(owner, 4, 9))))
    assert one is not None
    assert one.trying is not None
    assert (one.trying.last_command, one.trying.last_delta) == (4, 9)
    assert one.decided is None
