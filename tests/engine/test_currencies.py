"""Currencies: a number each while there is room, and never the listing's own by mistake."""

from itertools import islice, product
from string import ascii_uppercase

import numpy as np
import pytest

from engine.currencies import CURRENCIES_A_RETAILER_MAX, CURRENCIES_MAX, NO_ROOM, Currencies
from engine.deltas import RateChanged, RetailerAdded
from engine.microbatch import currency_code
from kernels.limits import PRICE_MINOR_MAX
from tests.engine.builders import World, only

CODES = ["".join(letters) for letters in islice(product(ascii_uppercase, repeat=3), CURRENCIES_MAX)]


def full() -> World:
    """Return a world whose shard knows as many currencies as it can."""
    world = World()
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    for code in CODES[:-1]:  # the retailer's own is one of them
        world.shard._memory.currencies.number(99 + CODES.index(code) // 40, code)
    return world


def test_a_currency_without_room_has_no_number() -> None:
    currencies = Currencies()
    numbers = [currencies.number(place // 40, code) for place, code in enumerate(CODES)]
    assert numbers == list(range(1, CURRENCIES_MAX + 1))
    assert currencies.number(9, "ZZZ") == NO_ROOM
    codes = np.array([0, currency_code("ZZZ"), currency_code(CODES[6])])
    assert currencies.numbers_of_codes(np.full(3, 9), codes).tolist() == [0, NO_ROOM, 7]
    assert Currencies.restore(currencies.state()).state() == currencies.state()


def test_a_retailer_uses_up_his_own_currencies_only() -> None:
    currencies = Currencies()
    most = CURRENCIES_A_RETAILER_MAX
    assert NO_ROOM not in [currencies.number(0, code) for code in CODES[:most]]
    assert [currencies.number(0, code) for code in CODES[most:]] == [NO_ROOM] * 210
    assert NO_ROOM not in [currencies.number(1, code) for code in CODES[-most:]]
    assert currencies.number(0, CODES[0]) == 1
    assert currencies.number(0, CODES[-1]) == NO_ROOM, "not even what another has named"


def test_an_offer_in_a_currency_without_room_is_refused() -> None:
    """Taken for the listing's own, 1500 of another currency would be a rival at 15.00 EUR."""
    world = full()
    refusal = only(world.send(world.rival(1500, currency="ZZZ")).exceptions)
    assert refusal.verdict == "rejected"
    assert refusal.reason.startswith("/currency")
    assert world.live()["rival_minor"] == 0
    assert not world.send(world.rival(1600)).exceptions
    assert world.live()["rival_minor"] == 1600


def test_whatever_else_names_a_currency_without_room_is_refused_whole() -> None:
    world = full()
    before = world.live()
    for delta in (
        world.listing(currency="ZZZ", title="new title"),
        world.listing("B", currency="ZZZ"),
        RateChanged(
            retailer="acme", currency="ZZZ", into="EUR", rate=1.0, observed_ms=world.now_ms
        ),
        RetailerAdded(retailer="other", currency="ZZZ", observed_ms=world.now_ms),
    ):
        refusal = only(world.send(delta).exceptions)
        assert refusal.verdict == "rejected"
        assert refusal.reason.startswith("/currency")
    assert world.live()["title"] == before["title"]
    assert world.live()["currency"] == "EUR"
    assert world.shard.live(world.key("B")) is None


@pytest.mark.parametrize(
    "delta",
    [
        lambda w: w.rival(PRICE_MINOR_MAX, shipping_minor=1, currency="ZZZ"),
        lambda w: w.rival(1500, sku="unknown", currency="ZZZ"),
        lambda w: w.whole(RateChanged, currency="ZZZ", into="ZZZ", rate=1.0),
        lambda w: w.whole(RetailerAdded, currency="ZZZ"),
    ],
)
def test_what_is_refused_takes_no_number(delta: object) -> None:
    """A table that all retailers share must not fill with what nobody uses."""
    world = World()
    world.send(world.listing())
    names = list(world.shard._memory.currencies.state()["names"])
    only(world.send(delta(world)).exceptions)  # type: ignore[operator]
    assert world.shard._memory.currencies.state()["names"] == names
