"""The command line says what, why and the next command, and keeps its exit codes."""

import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from cluster.__main__ import main
from cluster.commands import asking
from cluster.commands.asking import rejected
from cluster.commands.doubting import become
from cluster.commands.speaking import CONFLICT, NOT_FOUND, OK, UNAVAILABLE, USAGE, table
from cluster.settings import load
from engine.errors import RejectedInput, SettingsRefused


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Return the last line on standard output, as JSON."""
    document: dict[str, object] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return document


@pytest.mark.parametrize(
    "verb",
    [
        *(
            "demo",
            "up",
            "feed",
            "status",
            "price",
            "explain",
            "features",
            "learning",
            "experiments",
            "replay",
            "checkpoint",
            "doctor",
        ),
        *("tail", "chaos", "plan", "apply", "what-if", "mode", "backtest", "train"),
    ],
)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == OK
    assert "--json" in capsys.readouterr().out


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repriec"]) == USAGE


@pytest.mark.parametrize("verb", ["tail", "replay"])
def test_where_no_log_is_one_line_says_so(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many shards miss it at once, and without a traceback."""
    assert main([verb, "--folder", str(tmp_path), "--json"]) != OK
    written = capsys.readouterr()
    assert "Traceback" not in written.err
    error = json.loads(written.out.strip().splitlines()[-1])["error"]
    assert "`repricer up` creates it" in error["detail"]


def test_a_misspelt_setting_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--set", "shards.cuont=2"]) == USAGE
    error = last_line(capsys)["error"]
    assert isinstance(error, dict)
    assert "`shards.count`" in error["detail"]
    assert error["next"]


def test_config_says_where_a_value_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--origin", "--json", "--set", "shards.count=5"]) == OK
    assert last_line(capsys)["shards.count"] == {"value": 5, "origin": "flag"}


def test_the_schema_of_the_settings_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == OK
    assert last_line(capsys)["additionalProperties"] is False


def test_where_nothing_runs_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json", "--folder", str(tmp_path / "none")]) == UNAVAILABLE
    assert last_line(capsys)["running"] is False


def test_a_price_without_a_gateway_names_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["price", "sku", "--folder", str(tmp_path)]) == UNAVAILABLE
    assert "repricer up" in capsys.readouterr().err


def test_a_checkpoint_of_nothing_is_not_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoint", "--json", "--folder", str(tmp_path)]) == NOT_FOUND


def test_a_feed_must_say_whose_time_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prices.csv").write_text("a,b\n1,2\n")
    words = ["feed", str(tmp_path / "prices.csv"), "--folder", str(tmp_path), "--json"]
    assert main(words) == USAGE
    error = last_line(capsys)["error"]
    assert isinstance(error, dict)
    assert "--ends now" in error["detail"]


def test_a_dry_feed_reports_rows_that_cannot_be_mapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = tmp_path / "mapping.json"
    mapping.write_text(
        json.dumps(
            {
                "retailer": "shop",
                "time": {"column": "at", "unit": "iso"},
                "deltas": [
                    {
                        "type": "CostChanged",
                        "fields": {
                            "channel": "web",
                            "sku": "$sku",
                            "cost_minor": {"column": "cost", "times": [100], "whole": True},
                        },
                    }
                ],
            }
        )
    )
    (tmp_path / "costs.csv").write_text(
        "at,sku,cost\n2026-01-02T00:00:00Z,a,1.50\n2026-01-01T00:00:00Z,b,cheap\n"
    )
    words = ["feed", str(tmp_path / "costs.csv"), "--mapping", str(mapping), "--ends", "now"]
    assert main([*words, "--dry-run", "--folder", str(tmp_path), "--json"]) == OK
    answer = last_line(capsys)
    assert answer["deltas"] == 1
    assert answer["sent"] == 0
    assert answer["rejected"] == 1
    (rejected,) = answer["first_rejected"]  # type: ignore[misc]
    assert (rejected["row"], rejected["field"]) == (2, "cost_minor")
    assert Path(str(answer["rejected_in"])).is_file()


def test_event_time_needs_an_event_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CONFLICT == 4
    words = ["feed", "--synthetic-oj", "--weeks", "1", "--clock", "event", "--json"]
    assert main([*words, "--folder", str(tmp_path)]) == USAGE
    error = last_line(capsys)["error"]
    assert isinstance(error, dict)
    assert "shards.clock" in error["detail"]


def test_a_program_that_is_not_installed_is_named_with_the_extra() -> None:
    with pytest.raises(SettingsRefused, match=r"repricer\[perf\]"):
        become("perf.no_such_program", [])
    with pytest.raises(SettingsRefused, match=r"repricer\[perf\]"):
        become("no_such_package.chaos", [])


@pytest.mark.parametrize("stale", [True, False])
@pytest.mark.parametrize("verb", [["explain", "A-1"], ["experiments"]])
def test_what_is_old_is_told_as_old(
    verb: list[str],
    stale: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ask(*asked: object) -> dict[str, object]:
        return {"text": "It is.", "experiments": [], "as_of": "2027-01-15", "stale": stale}

    monkeypatch.setattr(asking, "ask", ask)
    assert main([*verb, "--folder", str(tmp_path)]) == OK
    assert ("nothing newer than 2027-01-15" in capsys.readouterr().err) is stale


async def _told_of_a_price(*asked: object) -> dict[str, object]:
    euro = {"amount": "12.54", "currency": "EUR"}
    return {
        "quote_id": "q1-0-" + "7" * 90,
        "bounds": {"floor": euro, "ceiling": None},
        "reasons": ["floor"],
        "stale": False,
    }


def test_what_a_person_pipes_away_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is as wide as what stands in it: a path or an id that is cut is none."""
    monkeypatch.setattr(asking, "ask", _told_of_a_price)
    assert main(["price", "A-1", "--folder", str(tmp_path)]) == OK
    written = capsys.readouterr().out
    assert "q1-0-" + "7" * 90 in written
    assert "floor 12.54 EUR, ceiling -" in written
    assert max(len(line) for line in written.splitlines()) < 200


def test_what_a_terminal_has_no_room_for_goes_on_in_the_next_line() -> None:
    shown = table("", "path")
    shown.add_row("x" * 100)
    narrow = Console(width=30, file=io.StringIO())
    narrow.print(shown)
    assert isinstance(narrow.file, io.StringIO)
    assert narrow.file.getvalue().count("x") == 100


def test_an_experiment_is_read_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = dict.fromkeys(asking.EXPERIMENT_LINES) | {"status": "running", "lift": 0.03}

    async def ask(*asked: object) -> dict[str, object]:
        told = {**standing, "experiment": "dearer", "shard": 1}
        return {"experiments": [told], "as_of": "2027-01-15", "stale": False}

    monkeypatch.setattr(asking, "ask", ask)
    assert main(["experiments", "--folder", str(tmp_path)]) == OK
    written = capsys.readouterr().out
    assert "dearer, shard 1" in written
    assert [line.split() for line in written.splitlines() if "interval at end" in line] == [
        ["interval", "at", "end", "-"]
    ]


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        ([{"detail": "d", "pointer": "/changes/0/fields/step_max"}], "/changes/0/fields/step_max"),
        ([{"detail": "d", "parameter": "channel"}], "?channel"),
        ([{"detail": "d"}], "input"),
        ([], "input"),
    ],
)
async def test_what_the_gateway_refuses_is_told_with_its_place(
    errors: list[dict[str, str]], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"detail": "is wrong: mend it", "errors": errors}, status=400)

    app = web.Application()
    app.router.add_get("/api/v1/products", refuse)
    async with TestServer(app) as server:
        card = Card(address=str(server.make_url("")).rstrip("/"))
        monkeypatch.setattr(asking, "role_card", lambda *_: card)
        monkeypatch.setattr(asking, "make_keys", lambda _: "rp_live_x")
        with pytest.raises(RejectedInput, match=f"^{re.escape(place)}: is wrong: mend it"):
            await asking.ask(load({"folder": tmp_path}), "/products", {})


class Card(msgspec.Struct):
    """Where a gateway answers."""

    address: str


@pytest.mark.parametrize(
    ("error", "detail", "told"),
    [
        ({"pointer": "/price/amount"}, "/price/amount: is low", "/price/amount: is low"),
        ({"pointer": "/key"}, "is empty", "/key: is empty"),
        ({"pointer": ""}, "is no object", "input: is no object"),
        ({"parameter": "channel"}, "channel: is long", "?channel: is long"),
        ({"header": "Idempotency-Key"}, "Idempotency-Key: is long", "Idempotency-Key: is long"),
    ],
)
def test_what_the_gateway_refuses_is_told_with_its_place_once(
    error: dict[str, str], detail: str, told: str
) -> None:
    assert str(rejected({"errors": [error]}, detail)) == told
    assert str(rejected({}, "is wrong")) == "input: is wrong"
