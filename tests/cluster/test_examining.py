"""The exam's verb: what it is given is checked before anything is simulated."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.__main__ import main
from cluster.commands.speaking import FAILURE, USAGE
from training.worlds.orange_juice import synthetic_oj

BRIEF = ("--seeds", "1", "--listings", "40", "--days", "7", "--json")
SIMULATED = ("--no-markdown", "--no-arena", "--no-poisoning", "--no-experiments")


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_policy_of_ones_own_is_sat_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mine.json"
    policy.write_text('{"endings": ["9"], "left_digit_bias": 0.2}')
    shares = []
    for given in ((), ("--policy", str(policy))):
        main(["exam", "--scenarios", "S8", *SIMULATED, *BRIEF, *given])
        document = told(capsys)
        (world,) = document["worlds"]
        shares.append(world["results"][0]["share"])
        assert ("policy" in document) == bool(given)
    assert document["policy"]["endings"] == ["9"]
    assert document["policy"]["learning"], "over the exam's own"
    assert shares[0] != shares[1]


def test_what_is_sat_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real data, too, of our own making: failures are told as loudly as passes, in every form."""
    table, out = tmp_path / "juice.parquet", tmp_path / "result"
    pq.write_table(synthetic_oj(stores=2), table)
    given = ("--scenarios", "S1", *SIMULATED, *BRIEF, "--oj", str(table), "--out", str(out))
    assert main(["exam", *given]) == FAILURE, "it is not the published table"
    document = told(capsys)
    assert json.loads((out / "exam.json").read_bytes()) == document
    (world,) = document["worlds"]
    assert world["calibration"]["forecasts"] == 40
    assert set(world["published"][0]) >= {"cost_plus", "group_ols"}
    assert document["orange_juice"]["cells"] > 100
    assert document["off_policy"]["cells"] > 100
    page = (out / "exam.md").read_text()
    for part in ("who earns what", "beliefs", "orange juice", "off policy"):
        assert f"## {part}" in page
    for goal in document["goals"]:
        assert f"| {goal['goal']} | {'yes' if goal['reached'] else '**NO**'} |" in page
    assert not all(goal["reached"] for goal in document["goals"])
    assert "</svg>" in (out / "beliefs.svg").read_text()


@pytest.mark.parametrize(
    ("text", "pointer"),
    [(None, "/policy"), ("[]", "/policy"), ('{"endigns": ["9"]}', "/fields/endigns")],
)
def test_a_policy_that_is_none_is_refused_at_once(
    text: str | None, pointer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mine.json"
    if text is not None:
        policy.write_text(text)
    assert main(["exam", *SIMULATED, *BRIEF, "--policy", str(policy)]) == USAGE
    assert pointer in json.dumps(told(capsys)["error"])
