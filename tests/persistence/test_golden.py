"""Bytes written by any released version stay readable, and today's are what they were."""

import pytest

from engine.microbatch import FactColumns, ObjectDelta
from engine.routing import partition_of
from persistence.decision_records import DecisionRecord, EpochStarted, Trying, decode, encode
from persistence.ports import Record
from persistence.wire import FRAME, Decoder, encode_delta
from tests.golden import examples
from tests.golden.write import FOLDER, golden_files
from tests.persistence.alike import same_columns, same_record

DECISIONS: dict[str, EpochStarted | Trying | DecisionRecord] = {
    "decision_v1_epoch_started.bin": examples.EPOCH_STARTED,
    "decision_v1_trying.bin": examples.TRYING,
    "decision_v1_heartbeat.bin": examples.heartbeat(),
    "decision_v1_decision.bin": examples.decision(),
}


def test_every_golden_file_is_known() -> None:
    known = {*golden_files(), "examples.py", "write.py", "__init__.py", "__pycache__"}
    assert {path.name for path in FOLDER.iterdir()} <= known


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_record_stays_readable(name: str) -> None:
    assert same_record(decode((FOLDER / name).read_bytes()), DECISIONS[name])


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_record_is_written_as_it_was(name: str) -> None:
    assert encode(DECISIONS[name]) == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", examples.deltas())
def test_a_delta_stays_readable(name: str) -> None:
    golden = (FOLDER / f"delta_v1_{name}.json").read_bytes()
    delta = examples.deltas()[name]
    assert encode_delta(delta) == golden
    batch = decoder().decode([Record(0, 0, b"acme", golden)], [], last_command=-1, last_delta=-1)
    assert batch.refusals == ()
    (run,) = batch.runs
    assert isinstance(run, FactColumns) or run == ObjectDelta(run.position, delta)


@pytest.mark.parametrize("name", ["frame_v1.arrow", "frame_v2.arrow"])
def test_a_frame_stays_readable(name: str) -> None:
    """The bytes of Arrow may change with its version, what they say may not."""
    golden = (FOLDER / name).read_bytes()
    blocks = []
    for value in (golden, golden_files()[name]):
        record = Record(9, 0, b"acme", value, FRAME)
        batch = decoder().decode([], [record], last_command=-1, last_delta=-1)
        assert batch.refusals == ()
        (block,) = batch.runs
        assert isinstance(block, FactColumns)
        blocks.append(block)
    assert same_columns(*blocks)
    assert blocks[0].amount.tolist() == examples.frame().amount.tolist()


def decoder() -> Decoder:
    return Decoder(partition_of("acme", 2), 2, {})
