"""What is kept of a run can be read again, and holds no secret."""

import json
from pathlib import Path

import numpy as np

from engine.decided import QUOTE_DTYPE, Decided, Outcome
from engine.microbatch import Position
from perf.chaos.keeping import Lines, keep_site
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, encode
from persistence.ports import COMMANDS, DECISIONS, Record

STAMP = Stamp(bytes(16), 1, 0, 3, b"a" * 16)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_become_lines(tmp_path: Path) -> None:
    lines = Lines(tmp_path)
    quotes = np.zeros(1, QUOTE_DTYPE)
    quotes["listing"], quotes["in_force_minor"] = 77, 500
    outcome = Outcome("op", Position(0, 4, 0), "anna", "key", "done", "PricePinned")
    decided = Decided(
        seq=9,
        last_command=4,
        last_delta=-1,
        decided_ms=1,
        model="m",
        digest=2,
        quotes=quotes,
        outcomes=(outcome,),
    )
    sealed = EpochStarted(STAMP, 1, "here", "wall", -1, 0, -1, 1)
    lines.note(DECISIONS, 0, [Record(0, 5, None, encode(sealed))])
    records = [encode(DecisionRecord(STAMP, decided)), b"no decision"]
    lines.note(DECISIONS, 0, [Record(at + 1, 6, None, each) for at, each in enumerate(records)])
    lines.note(COMMANDS, 1, [Record(4, 7, None, b'{"type":"PricePinned"}')])
    sealed_line, decided_line, corrupt = read(tmp_path / f"{DECISIONS}-0.jsonl")
    assert (sealed_line["kind"], sealed_line["epoch"]) == ("EpochStarted", 3)
    assert (decided_line["offset"], decided_line["seq"], decided_line["last_command"]) == (1, 9, 4)
    assert decided_line["quotes"][0]["in_force_minor"] == 500  # type: ignore[index]
    assert "op" in decided_line["outcomes"][0]  # type: ignore[index]
    assert "corrupt" in corrupt
    assert read(tmp_path / f"{COMMANDS}-1.jsonl")[0]["value"] == '{"type":"PricePinned"}'


def test_nothing_is_written_where_nothing_is_kept(tmp_path: Path) -> None:
    Lines(None).note(COMMANDS, 0, [Record(0, 7, None, b"{}")])
    assert list(tmp_path.iterdir()) == []


def test_logs_are_kept_and_secrets_are_not(tmp_path: Path) -> None:
    root, kept = tmp_path / "site", tmp_path / "kept"
    wanted = ("broker/data/repricer.decisions.v1-0/0.log", "folder/data/logs/gateway.log")
    for name in (*wanted, "folder/up.log", "folder/data/api.key", "tables.password"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    kept.mkdir()
    keep_site(root, kept)
    found = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert found == {"broker/repricer.decisions.v1-0/0.log", "engine/gateway.log", "up.log"}
