import pytest

from engine.routing import EVEN_SHARE_MAX, even_spread, partition_of, routing_key, shares_of


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
