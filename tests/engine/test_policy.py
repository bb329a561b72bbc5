"""Policies resolve field by field, and what is not understood is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET
from msgspec.structs import asdict, fields

from engine.errors import NotSupported, RejectedInput
from engine.policy import (
    ENDINGS_MAX,
    FIELDS,
    NOT_YET,
    POLICY_DTYPE,
    RETAILER_ONLY,
    SCOPES,
    Policy,
    PolicyBook,
    PolicyFields,
    decode_fields,
    ending_code,
    policy_row,
)
from kernels import columns

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"
LISTING = "shop\x1fA1"


def resolved(book: PolicyBook, **given: object) -> Policy:
    place: dict[str, object] = {
        "retailer": "r",
        "channel": "shop",
        "category": "juice",
        "tags": ("organic", "sale"),
        "listing": LISTING,
    }
    return book.resolve(**{**place, **given})  # type: ignore[arg-type]


def test_the_scopes_and_the_resolved_policy_have_the_same_fields() -> None:
    assert tuple(field.name for field in fields(PolicyFields)) == FIELDS
    assert not set(NOT_YET) & set(FIELDS)


def test_without_any_scope_the_defaults_hold() -> None:
    assert resolved(PolicyBook()) == Policy()


def test_the_narrower_scope_wins_field_by_field() -> None:
    book = PolicyBook()
    places = [("retailer", ""), ("channel", "shop"), ("category", "juice"), ("tag", "sale")]
    for step, (scope, key) in enumerate([*places, ("listing", LISTING)], start=1):
        book.change("r", scope, key, {"floor_minor": 100 * step, "min_margin": step / 100})  # type: ignore[arg-type]
        assert resolved(book).floor_minor == 100 * step
    book.change("r", "listing", LISTING, {"min_margin": None})
    assert resolved(book).floor_minor == 500
    assert resolved(book).min_margin == 0.04
    assert resolved(book, listing="shop\x1fB2").floor_minor == 400
    assert resolved(book, listing="", tags=()).floor_minor == 300
    assert resolved(book, listing="", tags=(), category="tea").floor_minor == 200
    assert resolved(book, listing="", tags=(), category="tea", channel="web").floor_minor == 100
    assert resolved(book, retailer="other") == Policy()


def test_of_two_tags_the_higher_number_wins() -> None:
    book = PolicyBook()
    book.change("r", "tag", "organic", {"floor_minor": 1, "ceiling_minor": 10}, priority=5)
    book.change("r", "tag", "sale", {"floor_minor": 2}, priority=6)
    assert resolved(book).floor_minor == 2
    assert resolved(book).ceiling_minor == 10
    assert resolved(book, tags=("sale", "organic")) == resolved(book)


def test_of_two_tags_with_one_number_the_order_of_tags_decides_nothing() -> None:
    book = PolicyBook()
    book.change("r", "tag", "organic", {"floor_minor": 1})
    book.change("r", "tag", "sale", {"floor_minor": 2})
    assert resolved(book).floor_minor == 1
    assert resolved(book, tags=("sale", "organic")).floor_minor == 1


def test_fields_named_replace_and_the_others_stay() -> None:
    book = PolicyBook()
    book.change("r", "retailer", "", {"floor_minor": 5, "step_max": 0.1})
    held = book.change("r", "retailer", "", {"step_max": 0.3})
    assert (held.floor_minor, held.step_max) == (5, 0.3)
    held = book.change("r", "retailer", "", {"floor_minor": None})
    assert held.floor_minor is UNSET
    assert resolved(book).floor_minor == 0


def test_a_refused_change_changes_nothing() -> None:
    book = PolicyBook()
    book.change("r", "retailer", "", {"floor_minor": 5})
    with pytest.raises(RejectedInput):
        book.change("r", "retailer", "", {"step_max": 0.1, "ceiling_minor": 4})
    assert resolved(book) == Policy(floor_minor=5)


def test_policies_resolved_equal_are_one_object() -> None:
    book = PolicyBook()
    book.change("r", "retailer", "", {"floor_minor": 5})
    assert resolved(book) is resolved(book, listing="shop\x1fB2", channel="web")


def test_the_winner_of_each_field_is_named() -> None:
    book = PolicyBook()
    book.change("r", "retailer", "", {"floor_minor": 1, "step_max": 0.1})
    book.change("r", "category", "juice", {"floor_minor": 2})
    won = book.winners("r", "shop", "juice", (), LISTING)
    assert (won["floor_minor"].value, str(won["floor_minor"])) == (
        2,
        "the policy of category juice",
    )
    assert str(won["step_max"]) == "the retailer's policy"
    assert str(won["min_margin"]) == "the engine's default"
    policy = asdict(resolved(book))
    assert {name: winner.value for name, winner in won.items()} == policy


def test_the_state_restores_the_book() -> None:
    book = PolicyBook()
    book.change("r", "retailer", "", {"endings": ["99"], "approval": "manual"})
    book.change("r", "tag", "sale", {"floor_minor": 2}, priority=6)
    again = PolicyBook.restore(book.state())
    assert again.state() == book.state()
    assert resolved(again) == resolved(book)


@pytest.mark.parametrize(
    ("given", "pointer", "said"),
    [
        ({"floor_mnior": 5}, "/fields/floor_mnior", "did you mean floor_minor?"),
        ({"step_max": 1.5}, "/fields/step_max", "1.0"),
        ({"step_max": "0.2"}, "/fields/step_max", "float"),
        ({"step_max": 0.12345}, "/fields/step_max", "four decimals"),
        ({"step_max": float("nan")}, "/fields/step_max", "finite"),
        ({"floor_minor": 0}, "/fields/floor_minor", "1"),
        ({"floor_minor": 9.99}, "/fields/floor_minor", "int"),
        ({"floor_minor": 2**30 + 1}, "/fields/floor_minor", "1073741824"),
        ({"floor_minor": 10, "ceiling_minor": 9}, "/fields/floor_minor", "above ceiling_minor"),
        ({"endings": ["9,9"]}, "/fields/endings/0", "regex"),
        ({"endings": ["99"] * (ENDINGS_MAX + 1)}, "/fields/endings", "8"),
        ({"approval": "later"}, "/fields/approval", "later"),
        ({"rival_position": 0.4999}, "/fields/rival_position", "below 0.5"),
        ({"rival_position": 2.0001}, "/fields/rival_position", "2.0"),
        ({"rival_position": -0.99}, "/fields/rival_position", "0.0"),
        ({"rival_position": 0.99999}, "/fields/rival_position", "four decimals"),
        ({"rival_damping": 0.96}, "/fields/rival_damping", "0.95"),
        ({"prior_elasticity": 2.6}, "/fields/prior_elasticity", "-1.05"),
        ({"min_margin": True}, "/fields/min_margin", "float"),
    ],
)
def test_bad_input_is_refused_and_told_where_and_why(
    given: dict[str, object], pointer: str, said: str
) -> None:
    with pytest.raises(RejectedInput) as refused:
        decode_fields(given)
    assert not isinstance(refused.value, NotSupported)
    assert refused.value.pointer.startswith(pointer)
    assert said in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_not_built_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotSupported) as refused:
        decode_fields({name: "revenue"})
    assert refused.value.pointer == f"/fields/{name}"


@pytest.mark.parametrize("name", sorted(RETAILER_ONLY))
def test_what_counts_over_a_retailer_is_set_for_a_retailer_only(name: str) -> None:
    value = getattr(Policy(), name)
    assert getattr(decode_fields({name: value}, "retailer"), name) == value
    for scope in SCOPES[:-1]:
        with pytest.raises(RejectedInput, match="retailer's scope"):
            decode_fields({name: value}, scope)


@pytest.mark.parametrize(
    ("scope", "key"), [("retailer", "x"), ("channel", ""), ("listing", "shop"), ("tag", "")]
)
def test_a_key_that_names_nothing_is_refused(scope: str, key: str) -> None:
    with pytest.raises(RejectedInput) as refused:
        PolicyBook().change("r", scope, key, {})  # type: ignore[arg-type]
    assert refused.value.pointer == "/key"


def test_every_default_is_a_value_that_a_retailer_could_write() -> None:
    default = {
        name: value
        for name, value in asdict(Policy()).items()
        if name not in ("floor_minor", "ceiling_minor")
    }
    assert asdict(decode_fields(default)) == {
        **default,
        "floor_minor": UNSET,
        "ceiling_minor": UNSET,
    }


@pytest.mark.parametrize("position", [0, 0.5, 0.9999, 1, 2])
def test_a_position_is_none_or_half_to_double(position: float) -> None:
    assert decode_fields({"rival_position": position}).rival_position == position
    row = policy_row(Policy(rival_position=position, rival_damping=0.35))
    assert (row["rival_position_bp"], row["rival_damping_bp"]) == (round(position * 10_000), 3500)


def test_a_row_holds_the_policy_exactly() -> None:
    row = policy_row(
        Policy(step_max=0.2929, min_margin=0.07, endings=("99", "9"), approval="manual")
    )
    assert row.dtype == POLICY_DTYPE
    assert (row["step_max_bp"], row["min_margin_bp"], row["manual"]) == (2929, 700, 1)
    assert row["endings"].tolist() == [20_099, 10_009, 0, 0, 0, 0, 0, 0]
    assert row["prior_elasticity"] == np.float32(-2.6)


def test_endings_of_different_length_are_different() -> None:
    assert len({ending_code(text) for text in ("9", "09", "009", "0", "00")}) == 5
    assert ENDINGS_MAX == columns.ENDINGS_MAX


# ----- the documentation ------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """Return the cells of each field's row in docs/policy.md."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_every_field_is_documented_with_its_default() -> None:
    rows = {name: cells for name, cells in documented().items() if name not in NOT_YET}
    assert tuple(rows) == FIELDS
    for name, default in asdict(Policy()).items():
        meaning, unit, shown, scope, shows = rows[name]
        assert meaning
        assert unit
        assert shows
        assert shown == shown_default(name, default), name
        assert scope == ("retailer" if name in RETAILER_ONLY else "any"), name


def shown_default(name: str, default: object) -> str:
    if name in ("floor_minor", "ceiling_minor"):
        return "none"
    if default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def test_what_is_not_built_is_documented_with_what_to_do_instead() -> None:
    rows = documented()
    assert {name: rows[name][0] for name in NOT_YET} == dict(NOT_YET)
