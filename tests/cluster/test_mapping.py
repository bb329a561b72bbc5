"""A file's rows become deltas; a bad row is named and the others go on."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from cluster.mapping import (
    Expression,
    FileMapping,
    RowMapper,
    Template,
    load_mapping,
    opening_deltas,
)
from cluster.rows_by_time import PathRows, RowFile, TableRows
from engine.deltas import CompetitorPriced, CostChanged, ListingChanged, UnitsSold
from engine.errors import RejectedInput
from training.worlds.orange_juice import synthetic_oj

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "oj.json"


def mapper(table: pa.Table | RowFile) -> RowMapper:
    file = TableRows(table) if isinstance(table, pa.Table) else table
    rows = RowMapper(load_mapping(EXAMPLE), file, source="oj")
    rows.sort()
    return rows


def test_the_example_makes_ten_rivals_a_sale_and_a_cost_of_each_row() -> None:
    table = synthetic_oj(weeks=3, stores=4)
    rows = mapper(table)
    mapped = list(rows.rows(0))
    deltas = [delta for each in mapped for delta in each.deltas]
    kinds = [type(delta) for delta in deltas]
    assert kinds.count(CompetitorPriced) == 10 * table.num_rows
    assert kinds.count(UnitsSold) == table.num_rows
    assert kinds.count(CostChanged) == table.num_rows
    places = zip(table["store"].to_pylist(), table["brand"].to_pylist(), strict=True)
    assert kinds.count(ListingChanged) == len(set(places))
    assert not rows.rejected


def test_a_rival_costs_his_price_an_ounce_times_our_size() -> None:
    table = synthetic_oj(weeks=1, stores=1)
    first = next(iter(mapper(table).rows(0)))
    row = table.slice(first.row - 1, 1).to_pylist()[0]
    rivals = [delta for delta in first.deltas if isinstance(delta, CompetitorPriced)]
    assert str(row["brand"]) not in {rival.rival for rival in rivals}, "nobody is his own rival"
    for rival in rivals:
        expected = round(row[f"price_per_oz_{rival.rival}"] * row["oz"] * 100)
        assert rival.price_minor == expected


def test_rows_come_in_the_order_of_time_and_number_their_sales() -> None:
    rows = mapper(synthetic_oj(weeks=5, stores=2))
    mapped = list(rows.rows(0))
    assert [each.observed_ms for each in mapped] == sorted(each.observed_ms for each in mapped)
    sales = [delta for each in mapped for delta in each.deltas if isinstance(delta, UnitsSold)]
    assert [sale.source_seq for sale in sales] == list(range(len(sales)))


def test_going_on_in_the_middle_sends_the_rest_and_nothing_twice() -> None:
    table = synthetic_oj(weeks=5, stores=2)
    whole = [each for each in mapper(table).rows(0)]
    half = len(whole) // 2
    assert [each for each in mapper(table).rows(half)] == whole[half:]


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("price", None, "price_minor"),
        ("price", float("nan"), "price_minor"),
        ("price", -1.0, "price_minor"),
        ("price", 0.0, "price_minor"),
        ("unit_cost", 1e12, "cost_minor"),
        ("units", None, "units"),
        ("week", None, "time"),
        ("price_per_oz_3", 0.0, "price_minor"),
    ],
)
def test_a_bad_cell_is_reported_with_row_and_field(
    column: str, value: float | None, field: str
) -> None:
    rows = synthetic_oj(weeks=2, stores=1).to_pylist()
    bad = next(index for index, row in enumerate(rows) if row["brand"] != 3)
    rows[bad][column] = value
    mapped = mapper(pa.Table.from_pylist(rows))
    sent = list(mapped.rows(0))
    assert {(each.row, each.field) for each in mapped.rejected} == {(bad + 1, field)}
    assert all(each.fix for each in mapped.rejected)
    assert len(sent) >= len(rows) - 1


def test_a_fault_that_many_deltas_of_a_row_share_is_told_once() -> None:
    """Every rival's price of a row without a size lacks it; the row after it is told by itself."""
    table = synthetic_oj(weeks=2, stores=2)
    size = table["oz"].to_pylist()
    size[3] = size[4] = "large"
    at = table.column_names.index("oz")
    mapped = mapper(table.set_column(at, "oz", pa.array([str(each) for each in size])))
    kept = [delta for each in mapped.rows(0) for delta in each.deltas]
    assert sum(isinstance(delta, CompetitorPriced) for delta in kept) == 10 * (len(size) - 2)
    told = [(each.row, each.field) for each in mapped.rejected]
    assert sorted(set(told)) == sorted(told)
    assert {row for row, _ in told} == {4, 5}


def test_a_missing_column_is_named_with_the_nearest() -> None:
    table = synthetic_oj(weeks=1, stores=1).rename_columns(
        ["prize" if name == "price" else name for name in synthetic_oj(1, 1).column_names]
    )
    with pytest.raises(RejectedInput, match="did you mean 'prize'"):
        mapper(table)


def test_csv_is_read_as_parquet_is(tmp_path: Path) -> None:
    table = synthetic_oj(weeks=2, stores=1)
    csv.write_csv(table, tmp_path / "oj.csv")
    assert [each.deltas for each in mapper(PathRows(tmp_path / "oj.csv")).rows(0)] == [
        each.deltas for each in mapper(table).rows(0)
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_larger_than_a_chunk_is_sorted_all_the_same(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of its time, equal times as the file has them, bad rows named, none kept."""
    table = synthetic_oj(weeks=12, stores=3)
    rows = table.num_rows
    weeks = table.column("week").to_pylist()
    shuffled = table.take([(at * 7919) % rows for at in range(rows)])
    weeks = shuffled.column("week").to_pylist()
    weeks[5] = None
    place = shuffled.column_names.index("week")
    shuffled = shuffled.set_column(place, "week", pa.array(weeks))
    path = tmp_path / f"oj.{kind}"
    if kind == "csv":
        csv.write_csv(shuffled, path)
    else:
        parquet.write_table(shuffled, path, row_group_size=50)
    whole = mapper(PathRows(path))
    monkeypatch.setattr("cluster.rows_by_time.CHUNK_ROWS", 64)
    monkeypatch.setattr("cluster.rows_by_time.BATCH_ROWS", 16)
    monkeypatch.setattr("cluster.rows_by_time._BLOCKS", {"block_size": 4_000})
    chunked = mapper(PathRows(path))
    assert len(chunked._sorted._runs) > 3
    assert list(chunked.rows(0)) == list(whole.rows(0))
    order = [each.row - 1 for each in chunked.rows(0)]
    expected = sorted((week, row) for row, week in enumerate(weeks) if week is not None)
    assert order == [row for _, row in expected]
    assert len(chunked) == rows - 1
    assert [(each.row, each.field) for each in chunked.rejected] == [(6, "time")]
    assert list(chunked.rows(100)) == list(whole.rows(100))
    folder = chunked._sorted._folder
    assert folder is not None
    chunked.close()
    assert not Path(folder.name).exists()


def test_a_column_that_changes_its_type_halfway_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.rows_by_time._BLOCKS", {"block_size": 200})
    path = tmp_path / "odd.csv"
    lines = ["week,price"] + [f"{week},1" for week in range(100)] + ["100,cheap"]
    path.write_text("\n".join(lines))
    mapping = FileMapping(
        retailer="r",
        time=Expression(column="week", unit="week"),
        deltas=(Template(type="CostChanged", fields={"cost_minor": "$price"}),),
    )
    with pytest.raises(RejectedInput, match="cheap") as refused:
        RowMapper(mapping, PathRows(path), source="odd").sort()
    assert "keep their type" in str(refused.value)


def test_the_opening_names_the_retailer() -> None:
    (retailer,) = opening_deltas(load_mapping(EXAMPLE), 5)
    assert retailer.retailer == "dominicks"
    assert retailer.observed_ms == 5


def test_a_wrong_mapping_names_its_field(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    path.write_text('{"retailer": "r", "time": "$t", "deltas": [{"typ": "UnitsSold"}]}')
    with pytest.raises(RejectedInput, match="typ"):
        load_mapping(path)
