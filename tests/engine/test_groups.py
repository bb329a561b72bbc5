"""A changed policy reaches the groups that it concerns, all of them and no others."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine.deltas import ScopeKind
from engine.groups import Groups
from engine.listing_table import ListingText
from engine.policy import policy_row
from engine.retailers import Retailers

RETAILERS, SKUS = ("acme", "bell"), ("A1", "A2", "A3")
CHANNELS, CATEGORIES, TAGS = ("shop", "market"), ("", "juice", "tea"), ("new", "sale")


def two_retailers() -> Groups:
    retailers = Retailers()
    for name in RETAILERS:
        retailers.add(name, 0)
    return Groups(retailers)


LISTINGS = st.builds(
    ListingText,
    channel=st.sampled_from(CHANNELS),
    sku=st.sampled_from(SKUS),
    category=st.sampled_from(CATEGORIES),
    tags=st.sets(st.sampled_from(TAGS)).map(tuple),
)
SCOPES = st.one_of(
    st.just(("retailer", "")),
    st.tuples(st.just("channel"), st.sampled_from(CHANNELS)),
    st.tuples(st.just("category"), st.sampled_from(CATEGORIES[1:])),
    st.tuples(st.just("tag"), st.sampled_from(TAGS)),
    st.tuples(
        st.just("listing"),
        st.builds("{}\x1f{}".format, st.sampled_from(CHANNELS), st.sampled_from(SKUS)),
    ),
)
MARGINS = st.none() | st.integers(0, 9).map(lambda tenths: tenths / 10)
NUMBERS = st.sampled_from((0, 1))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(NUMBERS, LISTINGS, st.none(), st.none(), NUMBERS),
            st.tuples(NUMBERS, st.none(), SCOPES, MARGINS, NUMBERS),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_every_group_has_the_policy_that_its_scopes_resolve_to(
    steps: list[tuple[int, ListingText | None, tuple[ScopeKind, str] | None, float | None, int]],
    restored: bool,
) -> None:
    groups, known = two_retailers(), {}
    for retailer, text, scope, margin, priority in steps:
        if text is not None:
            known[groups.number(retailer, text)] = (retailer, text)
        if scope is not None:
            kind, key = scope
            before = {number: groups.policy_of(number) for number in known}
            changed = groups.change_policy(
                retailer, kind, key, {"min_margin": margin}, priority if kind == "tag" else 0, 1
            )
            after = {number: groups.policy_of(number) for number in known}
            assert set(changed.tolist()) == {at for at in known if before[at] != after[at]}
        if restored:
            groups = Groups.restore(groups.state(), groups._retailers)
        for number, key in enumerate(groups._keys):
            assert key is not None
            policy = groups.book.resolve(RETAILERS[key[0]], *key[1:])
            assert groups.policy_of(number) == policy
            assert groups.policy[number] == policy_row(policy)


def test_a_group_that_was_freed_and_begun_again_follows_its_listing() -> None:
    groups = two_retailers()
    texts = [ListingText(channel="shop", sku=f"A{n}") for n in range(8)]
    for text in texts:
        groups.change_policy(0, "listing", f"shop\x1f{text.sku}", {"min_margin": 0.1}, 0, 1)
    for text in texts:
        groups.number(0, text)
    groups.free(np.array([0]))
    assert groups.change_policy(0, "listing", "shop\x1fA3", {"min_margin": 0.2}, 0, 2).size == 0
    number = groups.number(0, texts[3])
    assert groups.policy_of(number).min_margin == 0.2
    changed = groups.change_policy(0, "listing", "shop\x1fA3", {"min_margin": 0.3}, 0, 3)
    assert changed.tolist() == [number]


def test_bounds_of_a_listing_do_not_resolve_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds a listing are as many scopes as groups: each with all would be their square."""
    groups, resolved = two_retailers(), []
    resolve = groups.book.resolve

    def counted(*place: object) -> object:
        resolved.append(place)
        return resolve(*place)  # type: ignore[arg-type]

    monkeypatch.setattr(groups.book, "resolve", counted)
    for n in range(40):
        key = f"shop\x1fA{n}"
        groups.change_policy(0, "listing", key, {"floor_minor": 5}, 0, 1)
        groups.number(0, ListingText(channel="shop", sku=f"A{n}", category=f"c{n % 4}"))
    resolved.clear()
    groups.change_policy(0, "listing", "shop\x1fA7", {"floor_minor": 6}, 0, 2)
    assert len(resolved) <= 2  # its group's, and the retailer's own
    resolved.clear()
    groups.change_policy(0, "category", "c1", {"min_margin": 0.2}, 0, 2)
    assert len(resolved) <= 11
