"""Which shard a seed's world runs: the toy mostly, the real one in part."""

from tests.sim.world import TOY, ShardKind


def kind_of(seed: int) -> ShardKind:
    """Return the kind of shard that the world of ``seed`` runs."""
    return TOY
