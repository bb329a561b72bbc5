"""What the flood's listings do under what it sends: a halted retailer would measure nothing."""

import numpy as np
import pytest

from engine.deltas import CompetitorPriced
from perf.flood import CHANNEL, RETAILER, RIVAL_NAMES, catalogue, now_ms, price_of, sku_of
from repricer import Shard, State, decide

LISTINGS = 400


def filled(*, following: bool) -> Shard:
    shard = Shard()
    for piece in catalogue(LISTINGS, following=following):
        decide(shard, piece, now_ms())  # at which the flood says that it was seen
    return shard


@pytest.mark.parametrize("following", [False, True])
def test_the_breaker_has_no_reason_to_halt_what_is_filled(following: bool) -> None:
    shard = Shard()
    states = set()
    for piece in catalogue(LISTINGS, following=following):
        decided = decide(shard, piece, now_ms())
        assert not [each for each in decided.catalogue if each.what == "breaker"]
        states |= set(decided.quotes["state"].tolist())
    assert states == {State.LIVE}


def moved(shard: Shard) -> tuple[int, int]:
    """Send what a flood sends, as single deltas; return quotes and facts."""
    random = np.random.default_rng(7)
    quotes = facts = 0
    for _ in range(20):
        at_ms = shard.decided_ms + 1_000
        told = [
            CompetitorPriced(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                rival=RIVAL_NAMES[number % len(RIVAL_NAMES)],
                price_minor=price_of(number) + int(random.integers(-60, 60)),
                observed_ms=at_ms,
            )
            for number in random.integers(0, LISTINGS, 100).tolist()
        ]
        facts += len(told)
        quotes += len(decide(shard, told, at_ms).quotes)
    return quotes, facts


def test_every_second_fact_moves_a_listing_that_follows_and_few_move_another() -> None:
    quotes, facts = moved(filled(following=True))
    assert quotes > 0.4 * facts
    quotes, facts = moved(filled(following=False))
    assert quotes < 0.05 * facts
