"""What training hands over. Apart from how it is fitted, so that who keeps models needs no JAX."""

from msgspec import Struct


class Trained(Struct, frozen=True, kw_only=True, eq=False):
    """A trained model."""

    version: str
    retailer: str
    artefact: bytes
    listings: int
    rows: int
    first_day: int
    last_day: int
    seed: int
    scores: dict[str, float]
