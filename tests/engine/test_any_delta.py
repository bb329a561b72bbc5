"""No delta that decodes raises in ``apply``, however extreme: a raise there kills the owner.

Strategies follow the types: each bound of a number, the longest and the oddest strings, every
literal. What is drawn is encoded and decoded first, so only what the schema lets through counts.
"""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from engine.decided import parse_quote_id
from engine.deltas import (
    AnyDelta,
    PolicyChanged,
    PriceApproved,
    RateChanged,
    RetailerAdded,
)
from engine.policy import FIELDS, PolicyFields
from tests.engine.builders import T, World, only

DECODER = msgspec.json.Decoder(AnyDelta)
TEXTS = (
    "acme",
    "99",
    "shop",
    "A",
    "bob",
    "EUR",
    "USD",
    "JPY",
    "ünï",
    "x" * 64,
    "q0-0-1-0",
    "shop\x1fA",
)
TIMES = (0, T - 1, T, T + 1, T + 299_000, T + 300_001, T * 1000, 2**53)
WHOLE = (0, 1, 2, 255, 256, 65_535, 2**30, 2**31 - 1, 2**31, 2**53, 2**62, 2**64, 10**400, -1)
RATIOS = (0.0, 5e-324, 1e-12, 0.05, 0.99, 1.0, 1.5, 1e6, 1e12, 1e308, -2.6)
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.sampled_from(WHOLE), st.sampled_from(RATIOS), st.text()
)


def numbers(kind: inspect.IntType | inspect.FloatType, among: Any) -> st.SearchStrategy[Any]:
    ends = [end for end in (kind.ge, kind.le) if end is not None]
    fits = [
        value
        for value in (*ends, *among)
        if (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    ]
    return st.sampled_from(fits)


def texts(kind: inspect.StrType) -> st.SearchStrategy[str]:
    longest = 6000 if kind.max_length is None else kind.max_length
    odd = ("9", "q1-0-1-" + "9" * 5000, "9" * longest, "-" * longest, "\x7f", "\\", "")
    return st.sampled_from(
        [
            text
            for text in (*TEXTS, *odd)
            if (kind.min_length or 0) <= len(text) <= longest
            and (kind.pattern is None or re.search(kind.pattern, text))
        ]
    )


def values(kind: inspect.Type, name: str = "") -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            return numbers(kind, TIMES if name.endswith("_ms") else WHOLE)
        case inspect.FloatType():
            return numbers(kind, RATIOS)
        case inspect.StrType():
            return texts(kind)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.UnionType():
            return st.one_of([values(one, name) for one in kind.types if not unset(one)])
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=kind.max_length or 9)
        case inspect.DictType():
            return policies()
        case inspect.StructType():
            return struct(kind)
        case _:
            raise AssertionError(f"no strategy for {kind}")


def unset(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.CustomType)


def struct(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    given_always: dict[str, st.SearchStrategy[Any]] = {"type": st.just(kind.tag)}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.fields:
        wanted = values(field.type, field.encode_name)
        if field.encode_name in ("retailer", "channel", "sku"):  # mostly one that is known
            known = {"retailer": "acme", "channel": "shop", "sku": "A"}[field.encode_name]
            wanted = st.one_of(st.just(known), st.just(known), wanted)
        (given_always if field.required else optional)[field.encode_name] = wanted
    return st.fixed_dictionaries(given_always, optional=optional)


def policies() -> st.SearchStrategy[dict[str, Any]]:
    """Some policy fields, each with a fitting value or with any other."""
    fields = {field.encode_name: values(field.type) for field in fields_of(PolicyFields)}
    assert set(fields) == set(FIELDS)
    optional = {name: st.one_of(fitting, fitting, ANYTHING) for name, fitting in fields.items()}
    return st.lists(st.sampled_from(FIELDS), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: optional[name] for name in names})
    )


def fields_of(kind: type[Any]) -> tuple[inspect.Field, ...]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found.fields


ANY_DELTA = values(inspect.type_info(AnyDelta))


def prepared() -> World:
    world = World()
    world.send(
        world.policy(approval="manual"), world.listing(kvi=True), world.listing("B", cost_minor=0)
    )
    world.send(world.rival(1900), world.stock(3))
    return world


@settings(deadline=None, max_examples=150)
@given(documents=st.lists(ANY_DELTA, min_size=1, max_size=6))
def test_whatever_decodes_is_applied_or_refused(documents: list[dict[str, Any]]) -> None:
    world = prepared()
    for document in documents:
        try:
            delta = DECODER.decode(json.dumps(document))
        except msgspec.ValidationError:
            continue
        world.send(delta)
    world.send(after_ms=3_600_000)


def refused(delta: Any) -> str:
    world = prepared()
    refusal = only(world.send(delta).exceptions)
    assert refusal.verdict == "rejected"
    return refusal.reason


@pytest.mark.parametrize("value", [1e308, 1e30, 10**30, 10**400, -1e308])
@pytest.mark.parametrize("name", ["step_max", "min_margin", "kvi_rival_ratio_max"])
def test_a_ratio_too_large_for_any_float_is_refused(name: str, value: Any) -> None:
    delta = PolicyChanged(
        retailer="acme", scope="retailer", fields={name: value}, observed_ms=T + 1000
    )
    assert refused(delta).startswith(f"/fields/{name}")


def test_a_command_with_a_number_that_messagepack_cannot_hold_is_answered() -> None:
    delta = PolicyChanged(
        retailer="acme",
        command_id="c",
        scope="retailer",
        fields={"min_margin": 2**64},
        observed_ms=T + 1000,
    )
    world = prepared()
    for verdict in ("rejected", "duplicate"):
        decided = world.send(delta, lane=0)
        assert only(decided.exceptions).verdict == verdict
        assert decided.outcomes[0].status == "refused"


def test_a_priority_that_no_record_can_hold_is_refused() -> None:
    delta = PolicyChanged(
        retailer="acme", scope="tag", key="sale", priority=2**70, fields={}, observed_ms=T + 1000
    )
    assert refused(delta).startswith("/priority")


@pytest.mark.parametrize("rate", [5e-324, 1e-13, 1e300])
def test_a_rate_whose_inverse_no_price_survives_is_refused(rate: float) -> None:
    """The inverse of a rate is a rate, too: 1 / 5e-324 is infinite."""
    delta = RateChanged(retailer="acme", currency="EUR", into="USD", rate=rate, observed_ms=T)
    assert refused(delta).startswith("/rate")
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgspec.json.encode(delta))


@pytest.mark.parametrize(
    "delta",
    [
        RetailerAdded(
            retailer="acme", currency="EUR", delta_quota_per_s=3_000_000_000, observed_ms=T + 1000
        ),
        PriceApproved(
            retailer="acme",
            channel="shop",
            sku="A",
            quote_id="q1-0-1-" + "9" * 94,
            observed_ms=T + 1000,
        ),
    ],
)
def test_what_no_column_can_hold_does_not_decode(delta: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(msgspec.json.encode(delta))


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_quote_id_with_endless_digits_is_none(digits: int) -> None:
    assert parse_quote_id("q1-0-1-" + "9" * digits) is None
    assert parse_quote_id("q1-0-1-" + "9" * 19) is not None
    delta = World().about(PriceApproved, quote_id="q1-0-1-" + "9" * digits)
    assert refused(delta).startswith("/quote_id")
