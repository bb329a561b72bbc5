"""Small versions of the rows of docs/evidence.md, with the real servers."""

import json

import pytest

from perf import hostile, real_input

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out Ray's dashboard, a dozen processes that nobody looks at here.

    `test_tree.py` and the tour start it.
    """
    monkeypatch.setenv("REPRICER_RAY__DASHBOARD", "false")


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document: dict[str, object] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return document


def test_synthetic_input_through_the_real_stack_is_judged_and_replayed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rows c and d: 913 listings, the real servers, judged by the oracle, decided once more."""
    code = real_input.main(["--synthetic-oj", "--weeks", "3", "--no-default-policy"])
    found = last_line(capsys)
    assert code == 0, found
    assert found["listings_priced"] == found["listings"] == 913
    assert found["against_precedence"] == 0
    assert found["stores_equal"] is True
    assert found["processes_left"] == 0


def test_hostile_records_are_counted_exactly_and_a_murderous_delta_is_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Row i, with a tenth of the records."""
    code = hostile.main(["--records", "1000", "--embedded"])
    found = last_line(capsys)
    assert code == 0, found
    assert found["murder_skipped"] == 1
    assert found["unplanned_restarts"] == 0
