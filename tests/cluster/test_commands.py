"""The command line says what, why and the next command, and keeps its exit codes."""

import json
from pathlib import Path

import pytest

from cluster.__main__ import main
from cluster.commands import asking
from cluster.commands.doubting import become
from cluster.commands.speaking import CONFLICT, NOT_FOUND, OK, UNAVAILABLE, USAGE
from engine.errors import SettingsRefused


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
