import numpy as np
import pytest

from engine.routing import (
    EVEN_SHARE_MAX,
    even_spread,
    key64,
    keys_under,
    partition_of,
    routing_key,
    shares_of,
    slots_of,
)


@pytest.mark.parametrize("spread", [1, 2, 3, 24])
def test_shares_are_those_of_the_skus(spread: int) -> None:
    shares = shares_of("shop", spread, 3)
    assert sum(shares) == pytest.approx(1.0)
    counts = [0] * 3
    for number in range(6_000):
        counts[partition_of(routing_key("shop", f"sku-{number}", spread), 3)] += 1
    assert [count / 6_000 for count in counts] == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize("partitions", [1, 2, 4, 16])
@pytest.mark.parametrize("retailer", ["shop", "store", "a much longer name"])
def test_even_is_even_and_no_fewer_slots_are(retailer: str, partitions: int) -> None:
    def excess(spread: int) -> float:
        keys = [f"{retailer}#{slot}" for slot in range(spread)]
        held = [partition_of(key, partitions) for key in keys]
        return max(map(held.count, range(partitions))) * partitions / spread

    spread = even_spread(retailer, partitions)
    assert excess(spread) <= EVEN_SHARE_MAX
    fewer = range(partitions, spread)
    assert all(excess(number) > EVEN_SHARE_MAX for number in fewer[-40:])


def test_the_most_even_is_named_where_no_number_of_slots_is_even() -> None:
    spread = even_spread("shop", 256)
    assert max(shares_of("shop", spread, 256)) * 256 == pytest.approx(2.5)


@pytest.mark.parametrize("length", range(1, 14))
@pytest.mark.parametrize("spread", [1, 2, 16, 1000])
def test_many_skus_are_routed_and_keyed_as_one_is(length: int, spread: int) -> None:
    random = np.random.default_rng(length)
    skus = random.integers(32, 127, (50, length)).astype(np.uint8)
    texts = [sku.tobytes().decode() for sku in skus]
    # Also where they are columns of something wider.
    for given in (skus, np.hstack((skus, skus))[:, :length], skus[:0]):
        told = [f"shop#{slot}" if spread > 1 else "shop" for slot in slots_of(given, spread)]
        assert told == [routing_key("shop", text, spread) for text in texts[: len(given)]]
    keys = keys_under("shop", "web")(text.encode() for text in texts)
    assert keys.tolist() == [key64("shop", "web", text) for text in texts]
    assert keys_under("shop", "web")([]).tolist() == []
