"""The verb mode: what it shows, what it gives, and what it does not do when it is dry."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.__main__ import main
from cluster.commands import giving
from cluster.commands.speaking import NOT_FOUND, OK, USAGE, NotFound

STATE: dict[str, Any] = {
    "retailer": "acme",
    "mode": "mixed",
    "modes": [{"shard": 0, "mode": "live"}, {"shard": 3, "mode": "shadow"}],
    "products": 1200,
    "halts": [{"channel": "shop", "reason": "a sale"}, {"channel": None, "reason": ""}],
    "breakers": [{"shard": 3, "reasons": ["3 % moved"]}],
    "as_of": "2027-01-15T08:00:00.000Z",
    "stale": False,
}


class Asked:
    """A gateway that knows one retailer, and takes what it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = STATE
        self.given: list[tuple[str, Any]] = []
        monkeypatch.setattr(giving, "ask", self._ask)

    async def _ask(
        self, settings: Any, path: str, chosen: Any, body: Any = None, **more: Any
    ) -> dict[str, Any]:
        if chosen["retailer"] != "acme":
            raise NotFound(f"there is no retailer {chosen['retailer']!r}")
        if path == "/publishing":
            return self.state
        self.given.append((path, body))
        return {"operation_id": "op", "status": "done", "kind": "ModeChanged", "detail": ""}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def verb(tmp_path: Path, *words: str) -> int:
    return main(["mode", *words, "--folder", str(tmp_path)])


@pytest.mark.parametrize("words", [["acme"], ["acme", "live", "--dry-run"]])
def test_who_only_asks_changes_nothing(
    words: list[str], asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(tmp_path, *words, "--json") == OK
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["changed"], answer["operation"], answer["before"]) == (False, None, STATE)
    assert verb(tmp_path, *words) == OK
    said = capsys.readouterr().out
    for told in ("mixed", "shard 3", "1,200", "a sale", "all channels", "breaker"):
        assert told in said
    assert ("would be" in said) == (len(words) > 1)
    assert asked.given == []


def test_a_mode_is_given_and_what_stops_prices_is_said(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(tmp_path, "acme", "live", "--json") == OK
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["changed"], answer["wanted"], answer["operation"]["status"]) == (
        True,
        "live",
        "done",
    )
    assert asked.given == [("/publishing:mode", {"mode": "live"})]
    assert verb(tmp_path, "acme", "live") == OK
    written = capsys.readouterr()
    assert "acme is live" in written.out
    assert "a halt of shop (a sale)" in written.err


def test_what_he_is_already_is_given_all_the_same(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gateway may not have heard that somebody changed it."""
    asked.state = STATE | {"mode": "live", "modes": []}
    assert verb(tmp_path, "acme", "live", "--json") == OK
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["changed"], len(asked.given)) == (False, 1)


def test_errors_have_their_codes(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb(tmp_path, "nobody", "live", "--json") == NOT_FOUND
    assert "nobody" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["detail"]
    assert verb(tmp_path, "acme", "dead") == USAGE
    assert asked.given == []
