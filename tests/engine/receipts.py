"""A listing's receipt, as the gateway makes it, of a shard that a test drives."""

from engine.decided import Decided
from engine.drivers import Driver, ListingFacts
from engine.explanation import Explanation, explain
from tests.engine.builders import World


def receipt(world: World, sku: str = "A", *, live: bool = True) -> Explanation:
    """Return the receipt of a listing's newest quote, with what its shard knows now."""
    key, shard = world.key(sku), world.shard
    quote, fields = shard.quote(key), shard.live(key)
    assert quote is not None and fields is not None
    seq, index = fields["quote"]
    decided_ms = _decided(world, seq).decided_ms
    policy = shard._memory.groups.book.winners(
        world.retailer,
        "shop",
        fields["category"] or "",
        tuple(fields["tags"]),
        f"shop\x1f{sku}",
    )
    facts = ListingFacts(channel="shop", sku=sku, currency=fields["currency"], policy=policy)
    known = shard.live_facts(key) if live else None
    assert known is None or known.quote == (seq, index)
    return explain(quote, facts, decided_ms, known)


def driver(told: Explanation, name: str) -> Driver | None:
    """Return a receipt's driver by its name, ``None`` where it has none."""
    found = [each for each in told.drivers if each.name == name]
    assert len(found) <= 1, name
    return found[0] if found else None


def _decided(world: World, seq: int) -> Decided:
    return next(each for each in world.decided if each.seq == seq)
