"""The documented Python surface works as its pages say."""

import re
import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import repricer
from engine.deltas import AnyDelta
from engine.microbatch import VERDICTS
from repricer import (
    CompetitorPriced,
    CostChanged,
    FeesChanged,
    ListingChanged,
    Overlooked,
    PriceReported,
    PublishingResumed,
    RejectedInput,
    RetailerAdded,
    Shard,
    UnitsSold,
    batch_of,
    decide,
)

ROOT = Path(__file__).parent.parent


def test_the_simulation_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "engine.md").read_text()
    example = re.search(r"executed by tests/test_repricer.py -->\n```python\n(.*?)```", page, re.S)
    assert example is not None
    exec(compile(example[1], "docs/engine.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert any("kvi" in line for line in lines)
    assert int(lines[-1]) > 230


def test_every_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A market with learning, and demand from a table: what outsiders drive the engine by."""
    page = (ROOT / "docs" / "engine.md").read_text()
    marked = r"executed by tests/test_repricer.py -->\n```python\n(.*?)```"
    examples = re.findall(marked, page, re.S)
    assert len(examples) == 3
    market: dict[str, object] = {}
    exec(compile(examples[1], "docs/engine.md", "exec"), market)
    learnt = capsys.readouterr().out
    assert "'elasticity':" in learnt and "'history_trusted':" in learnt
    table: dict[str, object] = {}
    exec(compile(examples[2], "docs/engine.md", "exec"), table)
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith("item 0 -2.")


def test_the_experiment_of_the_page_runs_and_finds_what_its_shop_knows() -> None:
    """Elasticity -1.2, costs of 60 %: a tenth dearer earns 11 % more."""
    page = (ROOT / "docs" / "experiments.md").read_text()
    example = re.search(r"executed by tests/test_repricer.py -->\n```python\n(.*?)```", page, re.S)
    assert example is not None
    names: dict[str, object] = {}
    exec(compile(example[1], "docs/experiments.md", "exec"), names)
    found = names["experiment"]
    assert isinstance(found, dict)
    assert (found["status"], found["verdict"]) == ("ended", "better")
    assert found["end_low"] < 0.115 < found["end_high"]


def test_the_example_of_the_module_runs() -> None:
    assert repricer.__doc__ is not None
    example = re.search(r"::\n\n(.*)\n\n``docs", repricer.__doc__, re.S)
    assert example is not None
    names: dict[str, object] = {}
    exec(compile(re.sub("(?m)^    ", "", example[1]), "repricer.py", "exec"), names)
    assert isinstance(names["shard"], Shard)
    assert names["shard"].seq == 1


def test_every_name_is_there() -> None:
    for name in repricer.__all__:
        assert getattr(repricer, name) is not None


def test_a_batch_follows_what_the_shard_has_consumed() -> None:
    shard = Shard()
    retailer = RetailerAdded(retailer="a", currency="EUR", observed_ms=1)
    listing = ListingChanged(retailer="a", channel="c", sku="s", observed_ms=1)
    cost = CostChanged(retailer="a", channel="c", sku="s", cost_minor=5, observed_ms=1)
    first = batch_of([retailer, listing, cost, cost], after=shard)
    assert (first.last_command, first.last_delta, first.deltas) == (-1, 3, 4)
    assert [len(run) if hasattr(run, "kind") else 1 for run in first.runs] == [1, 1, 2]
    shard.record(shard.apply(first, 2))
    second = batch_of([cost], after=shard, lane=0)
    assert (second.last_command, second.last_delta) == (0, 3)


def test_every_delta_and_verdict_is_documented() -> None:
    page = (ROOT / "docs" / "engine.md").read_text()
    for name in (*(kind.__name__ for kind in get_args(AnyDelta)), *VERDICTS):
        assert f"`{name}`" in page, name


LISTING = {"retailer": "acme", "channel": "shop", "sku": "A1"}


@pytest.mark.parametrize(
    ("delta", "pointer", "problem"),
    [
        (FeesChanged(retailer="acme", channel="shop", vat=19, observed_ms=1), "/1/vat", "< 1.0"),
        (CostChanged(**LISTING, cost_minor=12.99, observed_ms=1), "/1/cost_minor", "got `float`"),
        (CostChanged(**LISTING, cost_minor=-5, observed_ms=1), "/1/cost_minor", ">= 0"),
        (CostChanged(**LISTING, cost_minor="9", observed_ms=1), "/1/cost_minor", "got `str`"),
        (CostChanged(**LISTING, cost_minor=2**31, observed_ms=1), "/1/cost_minor", "<= "),
        (RetailerAdded(retailer="a b", currency="EUR", observed_ms=1), "/1/retailer", "regex"),
        (RetailerAdded(retailer="a", currency="eur", observed_ms=1), "/1/currency", "regex"),
        (
            RetailerAdded(retailer="a", currency="EUR", mode="Live", observed_ms=1),
            "/1/mode",
            "enum",
        ),
        (
            CompetitorPriced(**LISTING, rival="r", price_minor=float("nan"), observed_ms=1),
            "/1/price_minor",
            "got `float`",
        ),
        (UnitsSold(**LISTING, units=-1, event_id="e", observed_ms=1), "/1/units", ">= 0"),
    ],
)
def test_a_delta_that_the_wire_would_refuse_is_refused_here(
    delta: AnyDelta, pointer: str, problem: str
) -> None:
    good = CostChanged(**LISTING, cost_minor=900, observed_ms=1)
    with pytest.raises(RejectedInput, match=problem) as caught:
        batch_of([good, delta])
    assert caught.value.pointer == pointer
    assert type(delta).__name__ in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize("thing", [{"type": "CostChanged"}, None, "CostChanged"])
def test_what_is_no_delta_is_refused_by_its_place(thing: object) -> None:
    with pytest.raises(RejectedInput, match="is no delta") as caught:
        batch_of([thing])  # type: ignore[list-item]
    assert caught.value.pointer == "/0"


def test_numbers_of_numpy_and_whole_floats_are_taken_as_they_are_meant() -> None:
    delta = CostChanged(**LISTING, cost_minor=np.int64(900), observed_ms=np.float64(5.0))  # type: ignore[arg-type]
    fees = FeesChanged(retailer="acme", channel="shop", vat=np.float32(0.25), observed_ms=1)  # type: ignore[arg-type]
    batch = batch_of([fees, delta])
    assert batch.deltas == 2
    first, second = batch.runs
    assert isinstance(first, repricer.ObjectDelta)
    assert isinstance(first.delta, FeesChanged)
    assert type(first.delta.vat) is float
    assert isinstance(second, repricer.FactColumns)
    assert second.amount.tolist() == [900]
    assert second.observed_ms.tolist() == [5]


def opened(listings: int = 1, price_minor: int = 1000) -> Shard:
    """Return a shard with one retailer who is live, and some listings that are priced."""
    shard = Shard()
    told: list[AnyDelta] = [
        RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=0)
    ]
    for n in range(1, listings + 1):
        told.append(
            ListingChanged(
                **{**LISTING, "sku": f"A{n}"},
                price_minor=price_minor,
                cost_minor=600,
                observed_ms=0,
            )
        )
    decide(shard, told, 0)
    return shard


def sold(seq: int, units: int = 2, sku: str = "A1") -> UnitsSold:
    return UnitsSold(
        **{**LISTING, "sku": sku}, units=units, source="till", source_seq=seq, observed_ms=1_000
    )


def test_sales_that_are_not_counted_are_warned_of() -> None:
    """One source for all listings, and the day as its number: of a day only the first counts."""
    shard = opened(3)
    with pytest.warns(Overlooked) as told:
        decided = decide(shard, [sold(1, sku="A1"), sold(1, sku="A2"), sold(1, sku="A3")], 1_000)
    assert [each.verdict for each in decided.exceptions] == ["duplicate", "duplicate"]
    assert len(told) == 1
    text = str(told[0].message)
    assert text.startswith("2 of 3 deltas were not taken, the first a UnitsSold, duplicate: ")
    assert "/source_seq" in text
    assert told[0].filename == __file__


def test_a_delta_that_is_refused_is_warned_of_by_name() -> None:
    shard = opened()
    with pytest.warns(Overlooked, match="1 of 2 deltas .* a CostChanged, unknown_listing"):
        decide(
            shard,
            [
                sold(1),
                CostChanged(**{**LISTING, "sku": "B1"}, cost_minor=5, observed_ms=1_000),
            ],
            1_000,
        )
    with pytest.warns(Overlooked, match="a CostChanged, quarantined"):
        decide(shard, [CostChanged(**LISTING, cost_minor=6, observed_ms=2_000)], 2_000)


def test_what_changes_nothing_and_what_is_screened_is_not_warned_of() -> None:
    shard = opened()
    rival = {**LISTING, "rival": "bob", "source": "feed"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decide(shard, [CompetitorPriced(**rival, price_minor=990, observed_ms=1_000)], 1_000)
        same = CostChanged(**LISTING, cost_minor=600, observed_ms=0)
        wild = CompetitorPriced(**rival, price_minor=20, observed_ms=2_000)
        decided = decide(shard, [sold(1), same, wild], 2_000)
    assert [each.verdict for each in decided.exceptions] == ["duplicate", "quarantined"]


def test_a_halt_by_the_breaker_is_warned_of() -> None:
    """Floors far above many prices: all of them would move at once, and none does."""
    shard = opened(60)
    told: list[AnyDelta] = [
        PriceReported(**{**LISTING, "sku": f"A{n}"}, price_minor=400, observed_ms=400_000)
        for n in range(1, 61)
    ]
    with pytest.warns(Overlooked, match="the breaker halted acme: .* until PublishingResumed"):
        decide(shard, told, 400_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decide(shard, [PublishingResumed(retailer="acme", observed_ms=400_001)], 400_001)
