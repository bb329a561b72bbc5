"""Records written alike come out as they would one by one, whatever bytes are among them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.microbatch import FactColumns, Microbatch, ObjectDelta
from engine.routing import key64, partition_of, routing_key
from persistence.json_facts import JsonFacts
from persistence.json_templates import ALIKE_MIN, template_of
from persistence.ports import Record
from persistence.wire import Decoder

SHARD = partition_of("acme", 2)
HEAD = b'"observed_ms":17000000%05d,"retailer":"acme","channel":"web","sku":"S%04d"'
WAYS = (
    b'{"type":"CompetitorPriced",' + HEAD + b',"rival":"r%d","price_minor":%d,"currency":"EUR"}',
    b'{"type":"CompetitorPriced",' + HEAD + b',"rival":"r%d","price_minor":%d,"in_stock":false}',
    b'{"type":"StockCounted", ' + HEAD + b', "units":%d%d}',
    b'{"type":"UnitsSold",' + HEAD + b',"units":%d,"source":"till","source_seq":%d}',
    b'{"type":"UnitsSold",' + HEAD + b',"units":%d,"event_id":"event%d"}',
    b"{" + HEAD + b',"cost_minor":%d%d,"type":"CostChanged"}',
)
SLOTS = [f"acme#{slot}".encode() for slot in range(16)]


def written(way: bytes, place: int) -> bytes:
    """Return one fact, written in one way."""
    return way % (place, place % 7, 1 + place % 3, 100 + place)


def named_apart(way: bytes, place: int) -> bytes:
    """Return one fact of a SKU that no other place names."""
    return way % (place, place, 1 + place % 3, 100 + place)


def record(offset: int, value: bytes, key: bytes = b"acme") -> Record:
    return Record(offset, 0, key, value)


def decoded(decoder: Decoder, records: list[Record]) -> Microbatch:
    return decoder.decode([], records, last_command=-1, last_delta=-1)


def plain(batches: list[Microbatch]) -> tuple[list[object], list[object]]:
    """Return every delta and refusal in order, as plain values."""
    deltas: list[object] = []
    for batch in batches:
        for run in batch.runs:
            if isinstance(run, ObjectDelta):
                deltas.append(run)
            else:
                assert isinstance(run, FactColumns)
                names = FactColumns.__struct_fields__
                deltas += zip(*(getattr(run, name).tolist() for name in names), strict=True)
    return deltas, [refusal for batch in batches for refusal in batch.refusals]


def assert_alike(records: list[Record], spreads: dict[str, int] | None = None) -> None:
    """Together or one by one, known names or not: the same comes out."""
    alone = Decoder(SHARD, 2, spreads or {})
    expected = plain([decoded(alone, [one]) for one in records])
    together = Decoder(SHARD, 2, spreads or {})
    assert plain([decoded(together, records)]) == expected
    assert plain([decoded(together, records)]) == expected


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_read_as_columns(way: bytes) -> None:
    records = [record(place, written(way, place)) for place in range(3 * ALIKE_MIN)]
    assert_alike(records)
    batch = decoded(Decoder(SHARD, 2, {}), records)
    (run,) = batch.runs
    assert isinstance(run, FactColumns)
    assert run.listing[5] == key64("acme", "web", "S0005")
    assert (np.diff(run.observed_ms) == 1).all()


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 63),
        st.integers(0, 200),
        st.sampled_from(b'"\\:,{}[]0123456789 -.eE+anrstuil\x00\x1f\x7f\x80\xc3\xff')
        | st.integers(0, 255),
    ),
    max_size=24,
)


@settings(max_examples=300, deadline=None)
@given(ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=3), changes=CHANGES)
def test_strange_bytes_change_no_neighbour(
    ways: list[bytes], changes: list[tuple[int, int, int]]
) -> None:
    """Single bytes of some records are replaced: what hides in a value must still be seen."""
    values = [bytearray(written(ways[place % len(ways)], place)) for place in range(64)]
    for place, at, byte in changes:
        values[place][at % len(values[place])] = byte
    assert_alike([record(place, bytes(value)) for place, value in enumerate(values)])


@settings(max_examples=100, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    swaps=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(range(8))), max_size=6),
)
def test_what_is_as_long_but_not_alike_is_judged_alone(
    way: bytes, swaps: list[tuple[int, int]]
) -> None:
    """Names of another length, keys twice, leading zeros, other keys: of the very same length."""
    values = [written(way, place) for place in range(64)]
    edits = (
        (b'"channel":"web"', b'"channel":"w\\"'),
        (b'"channel"', b'"retaile"'),
        (b'"retailer":"acme","channel":"web"', b'"channel":"web","retailer":"acme"'),
        (b'"channel":"web","sku"', b'"channel":"web"," ku"'),
        (b'"observed_ms":17', b'"observed_ms":07'),
        (b'"retailer":"acme"', b'"retailer":"ac e"'),
        (b'"channel":"web","sku":"S', b'"channel":"we","sku":"wS'),
        (b"17000000", b"-7000000"),
    )
    for place, edit in swaps:
        values[place] = values[place].replace(*edits[edit])
    assert_alike([record(place, value) for place, value in enumerate(values)])


def test_a_stray_among_its_likes_is_refused() -> None:
    values = [written(WAYS[0], place) for place in range(64)]
    records = [record(place, value) for place, value in enumerate(values)]
    records[7] = record(7, values[7], key=b"other")
    assert_alike(records)
    (refusal,) = decoded(Decoder(SHARD, 2, {}), records).refusals
    assert refusal.verdict == "wrong_shard"


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from(WAYS),
    slots=st.lists(st.sampled_from([None, b"", b"acme", b"*", *SLOTS]), max_size=12),
    edits=st.lists(st.tuples(st.integers(0, 63), st.sampled_from(range(5))), max_size=12),
    sku_bytes=st.integers(0, 9),
)
def test_new_skus_of_a_spread_retailer_are_judged_as_one_by_one(
    way: bytes,
    slots: list[bytes | None],
    edits: list[tuple[int, int]],
    sku_bytes: int,
) -> None:
    """Most lie in the slot of their SKU, some elsewhere; some are another retailer's or odd."""
    records = []
    for place in range(64):
        sku = b"%09d" % (place * 7919)
        sku = sku[9 - sku_bytes :]
        value = named_apart(way, place).replace(b'"S%04d"' % place, b'"' + sku + b'"')
        records.append(record(place, value, routing_key("acme", sku.decode(), 16).encode()))
    changes = (
        (b'"acme"', b'"acmf"'),
        (b'"web"', b'"wxb"'),
        (b'"web"', b'"w b"'),
        (b'"sku":"0', b'"sku":"\x7f'),
        (b'"sku":"0', b'"sku":" '),
    )
    for place, change in edits:
        changed = records[place].value.replace(*changes[change])
        records[place] = record(place, changed, records[place].key)  # type: ignore[arg-type]
    for place, slot in enumerate(slots):
        records[5 * place] = Record(5 * place, 0, slot, records[5 * place].value)
    assert_alike(records, {"acme": 16})


def test_a_sku_that_cannot_be_printed_is_judged_by_its_type() -> None:
    values = [named_apart(WAYS[2], place) for place in range(64)]
    values[5] = values[5].replace(b'"S0005"', b'"S\x7f005"')
    assert_alike([record(place, value) for place, value in enumerate(values)])
    (run,) = decoded(Decoder(SHARD, 2, {}), [*map(record, range(64), values)]).runs
    assert isinstance(run, FactColumns)
    assert run.listing[5] == key64("acme", "web", "S\x7f005")


def test_new_skus_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block's names that were never seen none is judged one by one."""
    asked: list[object] = []
    monkeypatch.setattr(JsonFacts, "_admit_listing", lambda _, names: asked.append(names))
    values = [named_apart(WAYS[0], place) for place in range(64)]
    records = [record(place, value) for place, value in enumerate(values)]
    (run,) = decoded(Decoder(SHARD, 2, {}), records).runs
    assert isinstance(run, FactColumns)
    assert run.listing[5] == key64("acme", "web", "S0005")
    assert not asked


def test_amounts_out_of_bounds_are_refused() -> None:
    values = [written(WAYS[0], place) for place in range(64)]
    values[9] = values[9].replace(b'"price_minor":109', b'"price_minor":000')
    values[10] = values[10].replace(b'"price_minor":110', b'"price_minor":  0')
    assert_alike([record(place, value) for place, value in enumerate(values)])


def test_the_memory_of_names_is_bounded() -> None:
    """Names are forgotten, and come back the same."""
    values = [written(WAYS[0], place) for place in range(400)]
    records = [record(place, value) for place, value in enumerate(values)]
    small = Decoder(SHARD, 2, {}, remembered_max=64)
    parts = [decoded(small, records[start : start + 40]) for start in range(0, 400, 40)] * 2
    alone = plain([decoded(Decoder(SHARD, 2, {}), records)])
    assert plain(parts[:10]) == alone
    assert plain(parts[10:]) == alone


@pytest.mark.parametrize(
    "value",
    [
        b"[]",
        b"{}",
        b'{"type":"StockCounted"',
        b'{"type":"StockCounted","units":1.0}',
        b'{"type":"StockCounted","units":1} ',
        b'{"type":"StockCounted","units":1}{',
    ],
)
def test_what_is_not_flat_has_no_template(value: bytes) -> None:
    assert template_of(value, 2) is None
