"""Whatever the bytes, a record becomes facts, objects or refusals, and always the same ones."""

import json
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    PolicyChanged,
    PublishingHalted,
    StockCounted,
    UnitsSold,
)
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    Microbatch,
    ObjectDelta,
    Position,
    currency_code,
)
from engine.routing import key64, name64, partition_of, routing_key
from kernels.limits import PRICE_MINOR_MAX
from persistence.json_documents import DEPTH_MAX, JSON_BYTES_MAX
from persistence.ports import Record
from persistence.wire import (
    EVERY_SHARD,
    FRAME,
    Decoder,
    FrameColumns,
    encode_delta,
    encode_frame,
    read_facts,
)
from tests.persistence.alike import same_columns

ACME = partition_of("acme", 2)
NAMES = st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=12)
PRICES = st.integers(1, PRICE_MINOR_MAX)
COSTS = st.integers(0, PRICE_MINOR_MAX)
UNITS = st.integers(0, 2**31 - 1)
MILLIS = st.integers(0, 2**53)
CURRENCIES = st.sampled_from([None, "EUR", "USD", "JPY"])
OWN: dict[str, Any] = {
    "retailer": st.just("acme"),
    "channel": NAMES,
    "sku": NAMES,
    "observed_ms": MILLIS,
}
FACTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        CompetitorPriced,
        **OWN,
        rival=NAMES,
        price_minor=PRICES,
        shipping_minor=COSTS,
        currency=CURRENCIES,
        condition=st.sampled_from(["new", "used", "refurbished"]),
        in_stock=st.booleans(),
        source=st.none() | NAMES,
    ),
    st.builds(StockCounted, **OWN, units=UNITS),
    st.builds(
        UnitsSold,
        **OWN,
        units=UNITS,
        source=st.none() | NAMES,
        source_seq=st.none() | st.integers(0, 2**62),
        event_id=st.none() | NAMES,
        price_minor=st.none() | PRICES,
    ),
    st.builds(CostChanged, **OWN, cost_minor=COSTS),
)
OBJECTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        ListingChanged,
        **OWN,
        title=st.none() | NAMES,
        brand=st.none() | NAMES,
        price_minor=st.none() | PRICES,
    ),
    st.builds(PublishingHalted, retailer=st.just("acme"), observed_ms=MILLIS, reason=NAMES),
    st.builds(
        PolicyChanged,
        retailer=st.just("acme"),
        observed_ms=MILLIS,
        scope=st.just("retailer"),
        fields=st.dictionaries(NAMES, st.integers(0, 9) | st.lists(NAMES), max_size=3),
    ),
)
HOW = st.sampled_from(["compact", "spaced", "pretty", "ascii", "nulls"])


def written(delta: AnyDelta, how: str) -> bytes:
    """Return the delta's JSON as different producers would write it."""
    if how == "compact":
        return encode_delta(delta)
    if how == "nulls":
        return msgspec.json.encode(delta)  # every field, those not set as null
    document = json.loads(encode_delta(delta))
    if how == "ascii":
        return json.dumps(document).encode()
    return json.dumps(document, ensure_ascii=False, indent=1 if how == "pretty" else None).encode()


def record(value: bytes, offset: int = 0, key: bytes | None = b"acme") -> Record:
    return Record(offset, 0, key, value)


def decode(*records: Record, decoder: Decoder | None = None) -> Microbatch:
    decoder = decoder or Decoder(ACME, 2, {})
    return decoder.decode([], records, last_command=-1, last_delta=-1)


def refusal(value: bytes) -> str:
    """Return the reason for which the one record is refused."""
    batch = decode(record(value))
    assert batch.runs == ()
    (refused,) = batch.refusals
    assert refused.verdict == "undecodable"
    assert refused.position == Position(1, 0, 0)
    assert batch.deltas == 1
    return refused.reason


def columns_of(fact: Any, offset: int, index: int) -> FactColumns:
    """Return what the fact's columns must be, computed slowly."""
    priced, sold = isinstance(fact, CompetitorPriced), isinstance(fact, UnitsSold)
    kinds: dict[Any, tuple[int, str]] = {
        CompetitorPriced: (COMPETITOR_PRICED, "price_minor"),
        StockCounted: (STOCK_COUNTED, "units"),
        UnitsSold: (UNITS_SOLD, "units"),
        CostChanged: (COST_CHANGED, "cost_minor"),
    }
    kind, amount = kinds[type(fact)]
    source = fact.source if priced or sold else None
    seq = fact.source_seq if sold else None
    event = fact.event_id if sold else None
    flags = 0
    if priced:
        flags |= FLAG_IN_STOCK if fact.in_stock else 0
        flags |= FLAG_CONDITION_NEW if fact.condition == "new" else 0
    return FactColumns(
        kind=np.array([kind], np.uint8),
        listing=np.array([key64(fact.retailer, fact.channel, fact.sku)], np.uint64),
        amount=np.array([getattr(fact, amount)], np.int64),
        observed_ms=np.array([fact.observed_ms], np.int64),
        rival=np.array([name64(fact.rival) if priced else 0], np.uint64),
        shipping_minor=np.array([fact.shipping_minor if priced else 0], np.int32),
        currency=np.array(
            [currency_code(fact.currency) if priced and fact.currency else 0], np.uint32
        ),
        flags=np.array([flags], np.uint8),
        source=np.array([name64(source) if source else 0], np.uint64),
        source_seq=np.array([-1 if seq is None else seq], np.int64),
        event=np.array([name64(event) if event else 0], np.uint64),
        lane=np.array([1], np.uint8),
        offset=np.array([offset], np.int64),
        index=np.array([index], np.int32),
    )


def joined(blocks: list[FactColumns]) -> FactColumns:
    return FactColumns(
        **{
            name: np.concatenate([getattr(block, name) for block in blocks])
            for name in FactColumns.__struct_fields__
        }
    )


def frame_of(facts: list[Any]) -> bytes:
    """Return the facts as one frame."""
    blocks = joined([columns_of(fact, 0, 0) for fact in facts])
    rivals = [getattr(fact, "rival", None) for fact in facts]
    sources = [getattr(fact, "source", None) for fact in facts]
    rival_names = tuple(dict.fromkeys(name for name in rivals if name))
    source_names = tuple(dict.fromkeys(name for name in sources if name))
    return encode_frame(
        "acme",
        FrameColumns(
            kind=blocks.kind,
            listing=blocks.listing,
            amount=blocks.amount,
            observed_ms=blocks.observed_ms,
            rival=np.array([rival_names.index(n) if n else -1 for n in rivals], np.int32),
            rival_names=rival_names,
            shipping_minor=blocks.shipping_minor,
            currency=blocks.currency,
            flags=blocks.flags,
            source=np.array([source_names.index(n) if n else -1 for n in sources], np.int32),
            source_names=source_names,
            source_seq=blocks.source_seq,
            event=blocks.event,
            sold_minor=np.array([price_of(fact) for fact in facts], np.int32),
        ),
    )


def price_of(fact: Any) -> int:
    """Return the price at which units were sold, 0 where it is no sale or does not tell it."""
    return (fact.price_minor or 0) if isinstance(fact, UnitsSold) else 0


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(FACTS, HOW), min_size=1, max_size=12))
def test_json_and_frames_give_the_same_columns(facts: list[tuple[Any, str]]) -> None:
    batch = decode(*(record(written(fact, how), n) for n, (fact, how) in enumerate(facts)))
    assert batch.refusals == ()
    assert batch.deltas == len(facts)
    (block,) = batch.runs
    assert isinstance(block, FactColumns)
    assert same_columns(block, joined([columns_of(f, n, 0) for n, (f, _) in enumerate(facts)]))

    framed = decode(Record(5, 0, b"acme", frame_of([fact for fact, _ in facts]), FRAME))
    assert framed.refusals == ()
    (block,) = framed.runs
    assert isinstance(block, FactColumns)
    assert same_columns(block, joined([columns_of(f, 5, n) for n, (f, _) in enumerate(facts)]))

    # Owners do not ask at which price units were sold; history does.
    sold = [price_of(fact) for fact, _ in facts]
    assert [read_facts(record(written(*fact)))[0].sold_minor for fact in facts] == sold
    named = read_facts(Record(5, 0, b"acme", frame_of([fact for fact, _ in facts]), FRAME))
    assert [fact.sold_minor for fact in named] == sold


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(FACTS | OBJECTS, HOW), max_size=10))
def test_order_is_kept_and_facts_stand_together(deltas: list[tuple[Any, str]]) -> None:
    batch = decode(*(record(written(delta, how), n) for n, (delta, how) in enumerate(deltas)))
    expected: list[Any] = []
    for offset, (delta, _) in enumerate(deltas):
        if not isinstance(delta, CompetitorPriced | StockCounted | UnitsSold | CostChanged):
            expected.append(ObjectDelta(Position(1, offset, 0), delta))
        elif expected and isinstance(expected[-1], FactColumns):
            expected[-1] = joined([expected[-1], columns_of(delta, offset, 0)])
        else:
            expected.append(columns_of(delta, offset, 0))
    assert batch.refusals == ()
    assert batch.deltas == len(deltas)
    assert len(batch.runs) == len(expected)
    for run, wanted in zip(batch.runs, expected, strict=True):
        if isinstance(run, FactColumns):
            assert same_columns(run, wanted)
        else:
            assert run == wanted


@settings(deadline=None, max_examples=100)
@given(FACTS | OBJECTS)
def test_a_delta_comes_back_from_json(delta: Any) -> None:
    assert msgspec.json.decode(encode_delta(delta), type=AnyDelta) == delta


@settings(deadline=None, max_examples=100)
@given(st.lists(FACTS, min_size=1, max_size=6))
def test_history_reads_the_same_facts_with_names(facts: list[Any]) -> None:
    framed = read_facts(Record(0, 0, b"acme", frame_of(facts), FRAME))
    single = [fact for each in facts for fact in read_facts(record(encode_delta(each)))]
    for index, (fact, one, other) in enumerate(zip(facts, framed, single, strict=True)):
        assert (one.index, other.index) == (index, 0)
        assert other.sku == fact.sku
        assert one == msgspec.structs.replace(other, index=index, channel="", sku="")
        assert one.rival == getattr(fact, "rival", "")
        assert one.source == (getattr(fact, "source", None) or "")


SALE = b'{"type":"UnitsSold","retailer":"acme","channel":"a:b","sku":"s","units":4,"observed_ms":5}'
PRICE = encode_delta(
    CompetitorPriced(
        retailer="acme",
        channel="shop",
        sku="gid://shop/1",
        rival="r:1",
        price_minor=1999,
        observed_ms=5,
        source="feed:1",
        shipping_minor=3,
    )
)
LISTING = (
    b'{"type":"ListingChanged","retailer":"acme","channel":"shop","sku":"s","brand":"Rossi",'
    b'"observed_ms":5}'
)
POLICY = (
    b'{"type":"PolicyChanged","retailer":"acme","scope":"retailer","observed_ms":5,'
    b'"fields":{"a":{"b":1}}}'
)


@pytest.mark.parametrize(
    ("value", "pointer", "fix"),
    [
        (b"", "input", "send one whole JSON object"),
        (b"null", "input", "documented type"),
        (b"[]", "input", "documented type"),
        (b"NaN", "input", "send one JSON object"),
        (b"\xff\xfe", "input", "send one JSON object"),
        (b"\xef\xbb\xbf" + SALE, "input", "send one JSON object"),
        (SALE + SALE, "input", "send one JSON object"),
        (SALE[:-1], "input", "send one whole JSON object"),
        (SALE.replace(b'"s"', b'"\\ud800"'), "input", "send one"),
        (SALE.replace(b'"s"', b'"s\n"'), "input", "send one JSON object"),
        (SALE.replace(b'"s"', b'"\xff"'), "input", "send one JSON object"),
        (SALE.replace(b'"s"', b'"s\\n"'), "/sku", "documented characters"),
        (SALE.replace(b'"s"', b'""'), "/sku", "documented length"),
        (SALE.replace(b'"s"', b'"%s"' % (b"s" * 201)), "/sku", "documented length"),
        (SALE.replace(b'"s"', b"7"), "/sku", "send a string"),
        (SALE.replace(b'"s"', b"null"), "/sku", "send a string"),
        (SALE.replace(b"acme", b"ac me"), "/retailer", "documented characters"),
        (SALE.replace(b"acme", b"acme\\n"), "/retailer", "documented characters"),
        (SALE.replace(b"4", b"-4"), "/units", "whole number"),
        (SALE.replace(b"4", b"4.0"), "/units", "whole number"),
        (SALE.replace(b"4", b"4e0"), "/units", "whole number"),
        (SALE.replace(b"4", b"true"), "/units", "whole number"),
        (SALE.replace(b"4", b"NaN"), "input", "send one JSON object"),
        (SALE.replace(b"4", b"2147483648"), "/units", "whole number"),
        (SALE.replace(b"4", b"9" * 400), "/units", "whole number"),
        (SALE.replace(b"4", b"9" * 5_000), "", ""),
        (SALE.replace(b'"units":4,', b""), "/units", "add it"),
        (SALE.replace(b"UnitsSold", b"UnitsSolt"), "/type", "spelt as documented"),
        (SALE.replace(b'"type":"UnitsSold",', b""), "/type", "add it"),
        (SALE[:-1] + b',"colour":1}', "/colour", "leave it out"),
        (SALE[:-1] + b',"a/b~c":1}', "/a~1b~0c", "leave it out"),
        (SALE[:-1] + b',"colour":' + b"[" * 100_000 + b"}", "input", "flat documented object"),
        (SALE[:-1] + b',"event_id":""}', "/event_id", "documented length"),
        (SALE[:-1] + b',"source":""}', "/source", "documented length"),
        (PRICE[:-1] + b',"currency":"eur"}', "/currency", "documented characters"),
        (PRICE[:-1] + b',"currency":"EUR\\n"}', "/currency", "documented characters"),
        (PRICE[:-1] + b',"condition":"mint"}', "/condition", "spelt as documented"),
        (PRICE[:-1] + b',"in_stock":1}', "/in_stock", "documented type"),
        (PRICE.replace(b"1999", b"0"), "/price_minor", "whole number"),
        (PRICE.replace(b'"r:1"', b'""'), "/rival", "documented length"),
        (LISTING.replace(b'"Rossi"', b'""'), "/brand", "documented length"),
        (LISTING.replace(b'"Rossi"', b"7"), "/brand", "send a string"),
        (LISTING.replace(b'"Rossi"', b'"Ro\\nssi"'), "/brand", "documented characters"),
        (POLICY.replace(b'{"b":1}', b'{"b":%d}' % 2**64), "/fields/a/b", "smaller number"),
        (POLICY.replace(b'{"b":1}', b'[1,{"b":-%d}]' % 2**64), "/fields/a/1/b", "smaller number"),
        (POLICY.replace(b'{"b":1}', b"[" * 20 + b"]" * 20), "input", "flat documented object"),
        (SALE + b" " * JSON_BYTES_MAX, "input", "one delta a record"),
    ],
)
def test_a_refusal_names_the_place_and_the_fix(value: bytes, pointer: str, fix: str) -> None:
    reason = refusal(value)
    assert reason.startswith(pointer)
    assert fix in reason
    assert len(reason) < 500


def test_nesting_is_allowed_to_its_limit() -> None:
    inner = DEPTH_MAX - 3
    fits = POLICY.replace(b'{"b":1}', b"[" * (inner + 1) + b"]" * (inner + 1))
    assert decode(record(fits)).refusals == ()
    assert "deeper" in refusal(POLICY.replace(b'{"b":1}', b"[" * (inner + 2) + b"]" * (inner + 2)))
    braces = json.dumps("{[" * 50).encode()
    assert decode(record(POLICY.replace(b'{"b":1}', braces))).refusals == ()


DUPLICATES = [
    (SALE[:-1] + b',"units":4}', "/units"),
    (SALE[:-1] + b' ,"units" :5}', "/units"),
    (SALE[:-1] + b',"uni\\u0074s":5}', "/units"),
    (SALE.replace(b'"a:b"', b'"a\\u003ab"')[:-1] + b',"units":5}', "/units"),
    (SALE[:-1] + b',"channel":"c"}', "/channel"),
    (SALE.replace(b'"a:b"', b'"c"')[:-1] + b',"channel":"a:b"}', "/channel"),
    (SALE.replace(b'"a:b"', b'"a:b:c:d"')[:-1] + b',"channel":"c"}', "/channel"),
    (b'{"type":"UnitsSold",' + SALE[1:], "/type"),
    (PRICE[:-1] + b',"price_minor":1}', "/price_minor"),
    (PRICE[:-1] + b',"source":null}', "/source"),
    (PRICE[:-1] + b',"currency":null,"currency":null}', "/currency"),
    (PRICE[:-1] + b',"command_id":null,"command_id":null}', "/command_id"),
    (POLICY.replace(b'{"b":1}', b'{"b":1,"b":2}'), "/fields/a/b"),
    (POLICY.replace(b'{"b":1}', b'{"b":":","b":":"}'), "/fields/a/b"),
    (POLICY.replace(b'{"b":1}', b'[{"b:":1,"b:":2}]'), "/fields/a/0/b:"),
    (POLICY[:-1] + b',"fields":{}}', "/fields"),
]


@pytest.mark.parametrize(("value", "pointer"), DUPLICATES)
def test_a_key_that_occurs_twice_is_refused(value: bytes, pointer: str) -> None:
    assert refusal(value) == f"{pointer}: this key occurs twice (send each key once)"


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(FACTS, HOW, st.booleans()), min_size=1, max_size=8),
    st.data(),
)
def test_duplicates_are_found_among_good_neighbours(
    facts: list[tuple[Any, str, bool]], data: st.DataObject
) -> None:
    """A colon in one document must not make up for a key too many in another."""
    values = []
    for fact, how, twice in facts:
        pairs = list(json.loads(written(fact, how)).items())
        if twice:
            name, value = data.draw(st.sampled_from(pairs))
            values_for = (
                st.just(value)
                if not isinstance(value, str)
                else st.sampled_from([value, value + ":", ":", "::::"])
            )
            if name in ("type", "retailer", "currency", "condition"):
                values_for = st.just(value)
            at = data.draw(st.integers(0, len(pairs)))
            pairs.insert(at, (name, data.draw(values_for)))
        escape = data.draw(st.booleans())
        colon = ":" if data.draw(st.booleans()) else " : "
        text = ",".join(
            f"{json.dumps(k)}{colon}{json.dumps(v, ensure_ascii=escape)}" for k, v in pairs
        )
        values.append(("{" + text + "}").encode())
    batch = decode(*(record(value, offset) for offset, value in enumerate(values)))
    assert [refused.position.offset for refused in batch.refusals] == [
        offset for offset, (_, _, twice) in enumerate(facts) if twice
    ]
    assert all("occurs twice" in refused.reason for refused in batch.refusals)


def mutated(seed: int, value: bytes, rounds: int) -> bytes:
    """Return the value with some bytes changed, doubled, dropped or spliced."""
    random = np.random.default_rng(seed)
    changed = bytearray(value)
    tokens = [
        b'"',
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"\\",
        b"\\u0000",
        b"null",
        b"1e999",
        b"-",
        b"\xf0",
    ]
    for _ in range(rounds):
        place = int(random.integers(0, len(changed) + 1))
        span = int(random.integers(0, 9))
        match int(random.integers(0, 5)):
            case 0:
                changed[place : place + 1] = bytes([int(random.integers(0, 256))])
            case 1:
                del changed[place : place + span]
            case 2:
                changed[place:place] = tokens[int(random.integers(0, len(tokens)))]
            case 3:
                changed[place:place] = changed[place : place + 4 * span]
            case _:
                cut = int(random.integers(0, len(changed) + 1))
                changed = changed[cut:] + changed[:cut] if span == 0 else changed
    return bytes(changed)


def judged(batch: Microbatch) -> list[Any]:
    """Return a batch as comparable values, without where it was cut."""
    rows: list[Any] = []
    for run in batch.runs:
        if isinstance(run, FactColumns):
            columns = [getattr(run, name).tolist() for name in FactColumns.__struct_fields__]
            rows += zip(*columns, strict=True)
        else:
            rows.append((run.position, run.delta))
    return [rows, list(batch.refusals)]


def test_ten_thousand_hostile_documents_are_judged_alike_by_all() -> None:
    """No exception, every record accounted for, every refusal with a place and a fix.

    And the same verdict whether a document comes alone to a decoder that knows nothing, or in a
    crowd to one that has seen it all and remembers only four names.
    """
    random = np.random.default_rng(11)
    sources = [SALE, PRICE, POLICY, encode_delta(StockCounted(**EXAMPLE, units=3))]
    records = []
    for offset in range(10_000):
        seed = int(random.integers(0, 2**32))
        value = (
            mutated(seed, sources[offset % 4], 1 + seed % 4) if offset % 10 else sources[offset % 4]
        )
        if offset % 97 == 0:
            value = random.bytes(seed % 200)
        records.append(record(value, offset))
    crowd, forgetful = Decoder(ACME, 2, {}), Decoder(ACME, 2, {}, remembered_max=4)
    whole: list[Any] = [[], []]
    for start in range(0, len(records), 64):
        batch = decode(*records[start : start + 64], decoder=crowd)
        assert batch.deltas == len(records[start : start + 64])
        rows, refusals = judged(batch)
        whole[0] += rows
        whole[1] += refusals
    alone: list[Any] = [[], []]
    for one in records:
        rows, refusals = judged(decode(one, decoder=forgetful))
        assert len(rows) + len(refusals) == 1
        alone[0] += rows
        alone[1] += refusals
    assert whole == alone
    assert len(whole[1]) > 5_000
    for refused in whole[1]:
        assert refused.verdict in ("undecodable", "wrong_shard")
        assert re.fullmatch(r"(input|/[^ ]*[^:]*): .+ \(.+\)", refused.reason, re.DOTALL), refused


EXAMPLE: dict[str, Any] = {"retailer": "acme", "channel": "shop", "sku": "s", "observed_ms": 5}


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.sampled_from(["application/json", FRAME, "text/plain", ""]))
def test_no_bytes_are_too_strange(value: bytes, content_type: str) -> None:
    batch = decode(Record(0, 0, b"acme", value, content_type))
    assert batch.runs == ()
    assert len(batch.refusals) == 1


@settings(deadline=None, max_examples=100)
@given(FACTS, st.integers(0, 64))
def test_a_document_in_another_encoding_is_refused(fact: Any, cut: int) -> None:
    for codec in ("utf-16", "utf-32", "utf-16-le"):
        value = encode_delta(fact).decode().encode(codec)
        assert len(decode(record(value[: len(value) - cut])).refusals) == 1


def test_the_memory_is_bounded() -> None:
    decoder = Decoder(ACME, 2, {}, remembered_max=100)
    deltas = [StockCounted(**{**EXAMPLE, "sku": f"s-{n}"}, units=n) for n in range(1_000)]
    for start in range(0, 1_000, 10):
        some = deltas[start : start + 10]
        records = [record(encode_delta(delta), start + n) for n, delta in enumerate(some)]
        (block,) = decode(*records, decoder=decoder).runs
        assert isinstance(block, FactColumns)
        assert block.listing.tolist() == [key64("acme", "shop", delta.sku) for delta in some]
    remembered = decoder._json._listings
    assert len(remembered._young) + len(remembered._old) <= 100


# ----- lanes and shards ---------------------------------------------------------------------------


def test_commands_come_first_and_offsets_are_told() -> None:
    halt = PublishingHalted(retailer="acme", observed_ms=5, command_id="c-1")
    decoder = Decoder(ACME, 2, {})
    batch = decoder.decode(
        [record(encode_delta(halt), 7)],
        [record(SALE, 20), record(b"!", 31)],
        last_command=3,
        last_delta=9,
    )
    assert batch.runs[0] == ObjectDelta(Position(0, 7, 0), halt)
    assert isinstance(batch.runs[1], FactColumns)
    assert batch.refusals[0].position == Position(1, 31, 0)
    assert (batch.last_command, batch.last_delta, batch.deltas) == (7, 31, 3)
    empty = decoder.decode([], [], last_command=3, last_delta=9)
    assert (empty.last_command, empty.last_delta, empty.deltas) == (3, 9, 0)
    assert (empty.runs, empty.refusals) == ((), ())


@pytest.mark.parametrize("more", [b',"command_id":"c-1"}', b',"actor":"ada"}'])
def test_a_fact_that_wants_an_answer_is_an_object(more: bytes) -> None:
    (run,) = decode(record(SALE[:-1] + more)).runs
    assert isinstance(run, ObjectDelta)
    assert isinstance(run.delta, UnitsSold)


def test_a_stray_is_refused() -> None:
    other = next(n for n in ("bolt", "core", "dune", "echo") if partition_of(n, 2) != ACME)
    stray = SALE.replace(b"acme", other.encode())
    for key, value, says in [
        (other.encode(), stray, f"belongs to partition {1 - ACME} of 2"),
        (b"acme", stray, f"this SKU's is '{other}'"),
        (None, SALE, "the record's key is missing"),
        (b"\xff", SALE, "this SKU's is 'acme'"),
        (EVERY_SHARD, SALE, "this SKU's is 'acme'"),
    ]:
        batch = decode(record(value, key=key))
        assert batch.runs == ()
        assert [refused.verdict for refused in batch.refusals] == ["wrong_shard"]
        assert says in batch.refusals[0].reason


def test_a_known_sku_under_another_key_is_still_a_stray() -> None:
    decoder = Decoder(ACME, 2, {})
    assert decode(record(SALE), decoder=decoder).refusals == ()
    batch = decode(record(SALE, 0), record(SALE, 1, key=b"bolt"), decoder=decoder)
    assert [refused.position.offset for refused in batch.refusals] == [1]


def test_what_names_no_sku_may_go_to_every_shard() -> None:
    halt = encode_delta(PublishingHalted(retailer="bolt", observed_ms=5, command_id="c"))
    assert decode(record(halt, key=EVERY_SHARD)).refusals == ()
    assert len(decode(record(halt, key=b"acme")).refusals) == 1


def test_a_retailer_in_slots_is_routed_by_sku() -> None:
    spreads = {"acme": 4}
    skus = [f"s-{n}" for n in range(200)]
    halt = encode_delta(PublishingHalted(retailer="acme", observed_ms=5))
    shards_of: dict[str, list[int]] = {}
    for shard in (0, 1):
        decoder = Decoder(shard, 2, spreads)
        for sku in skus:
            key = routing_key("acme", sku, 4).encode()
            value = encode_delta(StockCounted(**{**EXAMPLE, "sku": sku}, units=1))
            if decode(record(value, key=key), decoder=decoder).refusals == ():
                shards_of.setdefault(sku, []).append(shard)
            assert len(decode(record(value), decoder=decoder).refusals) == 1
        slots = [f"acme#{slot}" for slot in range(4) if partition_of(f"acme#{slot}", 2) == shard]
        for slot in ("acme#0", "acme#1", "acme#2", "acme#3", "acme#4", "acme"):
            batch = decode(record(halt, key=slot.encode()), decoder=decoder)
            assert (batch.refusals == ()) == (slot in slots)
        policy = PolicyChanged(
            retailer="acme", scope="listing", key=f"shop\x1f{skus[0]}", observed_ms=5
        )
        own = routing_key("acme", skus[0], 4)
        for slot in slots:  # one listing's policy belongs where the listing does
            batch = decode(record(encode_delta(policy), key=slot.encode()), decoder=decoder)
            assert (batch.refusals == ()) == (slot == own)
    assert sorted(shards_of) == sorted(skus)
    assert all(len(shards) == 1 for shards in shards_of.values())
