"""A data set says the same whether it comes from history, a CSV or Parquet file, or JSON."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import RejectedInput
from engine.routing import key64
from persistence.sqlite_series import SqliteSeries
from training.daily_sales import DAY_MS, from_file, from_history
from training.rows import before, rows_of

FIRST = 20_000
KEYS = {sku: key64("acme", "shop", sku) for sku in ("A", "B", "gone")}


def signed(key: int) -> int:
    return int(np.array([key], dtype=np.uint64).view(np.int64)[0])


async def history(path: Path, *, priced_later_ms: int = 0) -> SqliteSeries:
    series = SqliteSeries(path)
    await series.migrate()

    async def append(table: str, rows: list[dict[str, Any]]) -> None:
        base = {"generation": 1, "shard": 0}
        columns = {name: [{**base, **row}[name] for row in rows] for name in {**base, **rows[0]}}
        await series.append(table, columns)

    at = FIRST * DAY_MS
    await append(
        "listings",
        [
            {"ts": 1, "seq": n, "listing": signed(KEYS[sku]), "retailer": who, "channel": "shop",
             "sku": sku, "category": "c", "removed": int(sku == "gone")}
            for n, (sku, who) in enumerate((("A", "acme"), ("B", "acme"), ("gone", "acme")))
        ],
    )  # fmt: skip
    await append(
        "prices",
        [
            {"ts": n, "seq": n, "listing": signed(KEYS[sku]), "in_force_minor": minor,
             "decided_ms": at + ms + priced_later_ms}
            for n, (sku, ms, minor) in enumerate(
                (
                    ("A", -5, 1000),
                    ("A", DAY_MS + 9 * 3_600_000, 1200),
                    ("B", 2 * DAY_MS, 500),
                    ("gone", 0, 700),
                )
            )
        ],
    )  # fmt: skip
    await append(
        "sales_metrics",
        [
            {"ts": n, "lane": 1, "log_offset": n, "item": 0, "listing": signed(KEYS[sku]),
             "units": units, "observed_ms": at + ms, "verdict": verdict}
            for n, (sku, ms, units, verdict) in enumerate(
                (
                    ("A", 1, 2, "accepted"),
                    ("A", 2, 3, "accepted"),
                    ("A", 3, 50, "duplicate"),
                    ("B", 2 * DAY_MS + 7, 4, "accepted"),
                    ("gone", 1, 9, "accepted"),
                    ("A", 3 * DAY_MS, 60, "accepted"),
                )
            )
        ],
    )  # fmt: skip
    return series


async def test_history_becomes_days(tmp_path: Path) -> None:
    """Prices are means of a day's looks; a day without sales is a zero, without a price unknown."""
    series = await history(tmp_path / "series.sqlite")
    data = await from_history(
        series, "acme", first_ms=FIRST * DAY_MS, until_ms=(FIRST + 3) * DAY_MS
    )
    at = {int(key): row for row, key in enumerate(data.keys.tolist())}
    assert set(at) == {KEYS["A"], KEYS["B"]}
    a, b = at[KEYS["A"]], at[KEYS["B"]]
    assert data.price[a].tolist() == [1000.0, 1100.0, 1200.0]
    assert data.units[a].tolist() == [5.0, 0.0, 0.0]
    assert data.units[b][2] == 4.0
    assert np.isnan(data.units[b][:2]).all() and np.isnan(data.price[b][:2]).all()
    assert data.categories == ("c",)
    for retailer in ("nobody", "x' or '1'='1"):
        with pytest.raises(RejectedInput):
            await from_history(series, retailer, first_ms=0, until_ms=DAY_MS * 9)
    await series.close()


async def test_sales_before_the_first_decided_price_are_told_apart_from_none(
    tmp_path: Path,
) -> None:
    """Sales that were imported have no price that history knows: a file has it."""
    series = await history(tmp_path / "series.sqlite", priced_later_ms=9 * DAY_MS)
    with pytest.raises(RejectedInput, match=r"4 sales of acme .*`repricer train FILE`"):
        await from_history(series, "acme", first_ms=FIRST * DAY_MS, until_ms=(FIRST + 3) * DAY_MS)
    await series.close()


@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
def test_a_file_becomes_days(tmp_path: Path, kind: str) -> None:
    rows = [
        {"sku": "A", "day": FIRST, "price_minor": 1000, "units": 5, "category": "c"},
        {"sku": "B", "day": FIRST + 2, "price_minor": 500, "units": 4, "category": "d"},
    ]
    path = tmp_path / f"sales.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_bytes(msgspec.json.encode(rows))
    else:
        path.write_text(
            "sku,day,price_minor,units,category\nA,2024-10-04,1000,5,c\nB,2024-10-06,500,4,d\n"
        )
    data = from_file(path, "acme")
    assert data.keys.tolist() == [KEYS["A"], KEYS["B"]]
    assert data.units[0][0] == 5.0 and data.units[1][2] == 4.0
    assert np.isnan(data.units).sum() == 4
    assert (data.first_day, data.days, data.categories) == (FIRST, 3, ("c", "d"))


@pytest.mark.parametrize(
    "rows",
    [
        [{"sku": "A", "day": 1, "units": 1}],
        [{"sku": "A", "day": 1, "units": 1, "price_minor": 0}],
        [{"sku": "A", "day": "the first", "units": 1, "price_minor": 9}],
        [{"sku": "A", "day": 1, "units": -1, "price_minor": 9}],
        [{"sku": "A", "day": 1, "units": 1, "price_minor": 9}, {"sku": "B"}],
        [{"sku": s, "day": d, "units": 1, "price_minor": 9} for s, d in (("A", 1), ("B", 9000))],
        [],
    ],
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "sales.json"
    path.write_bytes(msgspec.json.encode(rows))
    with pytest.raises(RejectedInput):
        from_file(path, "acme")


def test_what_is_known_before_a_day_never_holds_the_day_itself() -> None:
    from tests.training.shops import shop

    data, _ = shop(listings=3, days=40)
    state, rows = before(data), rows_of(data)
    for day in (1, 7, 28, 40):
        first = max(day - 28, 0)
        assert state.recent[0, day] == pytest.approx(data.units[0, first:day].mean())
        assert state.price_log[0, day] == pytest.approx(np.log(data.price[0, first:day]).mean())
    assert rows.day.min() == 7
    changed = data.units.copy()
    changed[:, 30] = 1e6
    other = before(type(data)(**{**{n: getattr(data, n) for n in data.__struct_fields__},
                                 "units": changed}))  # fmt: skip
    assert (other.recent[:, :31] == state.recent[:, :31]).all()
    assert (other.recent[:, 31:] != state.recent[:, 31:]).all()


def test_names_that_look_like_numbers_keep_their_zeros(tmp_path: Path) -> None:
    """``0010`` and ``10`` are two listings, and a day may have been written as 20000.0."""
    path = tmp_path / "sales.csv"
    path.write_text(
        "sku,day,price_minor,units,category\n0010,20000.0,1000,3,07\n10,20000.0,1000,4,7\n"
    )
    told = from_file(path, "acme", "shop")
    wanted = [key64("acme", "shop", sku) for sku in ("0010", "10")]
    assert told.keys.tolist() == wanted
    assert set(told.categories) == {"07", "7"}
