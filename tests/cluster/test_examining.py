"""The exam's verb: what it is given is checked before anything is simulated."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.__main__ import main
from cluster.commands.speaking import USAGE

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
