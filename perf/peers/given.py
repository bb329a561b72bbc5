"""What every peer is given: where to read and write, the catalogue, and the rule.

The peers run in virtual environments of their own, so this file needs nothing but Python. It lies
beside them, and a script finds what lies beside it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

RATIO_BP = 9_800
SLOTS = {"r0": 0, "r1": 1, "r2": 2, "r3": 3}
NO_PRICE = 1 << 30
"""In the place of a rival that has not spoken yet: above every price."""


@dataclass(frozen=True)
class Given:
    """The arguments."""

    bootstrap: str
    input: str
    output: str
    catalogue: Path
    events: int
    partitions: int
    folder: Path

    def listings(self) -> dict[str, tuple[int, int, int]]:
        """Return target, floor and first price by SKU."""
        listings = {}
        for line in self.catalogue.read_text().splitlines():
            sku, target, floor = line.split(",")
            listings[sku] = (int(target), int(floor), max(int(floor), int(target)))
        return listings


def given() -> Given:
    """Return what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="empty, for state")
    return Given(**vars(parser.parse_args()))


def price(target_minor: int, floor_minor: int, rival_minor: int) -> int:
    """Return a listing's price; ``rival_minor`` is the lowest known, ``NO_PRICE``: none."""
    wish = rival_minor * RATIO_BP // 10_000
    if wish > target_minor:
        wish = target_minor
    return wish if wish > floor_minor else floor_minor
