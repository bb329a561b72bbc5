"""The best case for facts: scattered into plain arrays and priced. Used by ``perf.throughput``.

No decoding, no names, no judgement of times, duplicates, offers or moves, no log: what is left of a
microbatch when everything is in memory already and every fact is believed.
"""

import time
from typing import Any

import numpy as np

from engine.microbatch import COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD
from engine.pricing import LADDER, warm
from kernels.columns import Floats, Integers, PricedIntegers
from kernels.limits import PRICE_MINOR_MAX
from kernels.reprice import reprice

BATCH_FACTS = 4_096
PRICE_COLUMN = PricedIntegers._fields.index("price_minor")


class Columns:
    """A shard's listings as the kernel wants them, and what the facts write."""

    def __init__(self, price_minor: np.ndarray, rivals: int) -> None:
        listings = len(price_minor)
        self.integers = np.zeros((len(Integers._fields), listings), dtype=np.int32)
        self.floats = np.zeros((len(Floats._fields), listings), dtype=np.float32)
        given: dict[str, np.ndarray | int] = {
            "cost_minor": price_minor * 65 // 100,
            "in_force_minor": price_minor,
            "status_quo_minor": price_minor,
            "status_quo_cost_minor": price_minor * 65 // 100,
            "floor_minor": price_minor * 70 // 100,
            "kvi": 1,
            "max_discount_bp": 10_000,
            "step_max_bp": 2_000,
            "changes_per_hour_max": 255,
            "kvi_rival_ratio_bp": 10_000,
        }
        for name, column in given.items():
            self.integers[Integers._fields.index(name)] = column
        for name, value in (
            ("prior_elasticity", -2.6),
            ("prior_elasticity_sd", 0.7),
            ("status_quo_sigma", 0.2),
        ):
            self.floats[Floats._fields.index(name)] = value
        self.landed = np.full((listings, rivals), PRICE_MINOR_MAX, dtype=np.int32)
        self.stock = np.zeros(listings, dtype=np.int32)
        self.sold = np.zeros(listings, dtype=np.int32)

    def apply(
        self, rows: np.ndarray, kind: np.ndarray, rival: np.ndarray, amount: np.ndarray
    ) -> None:
        """Scatter facts, gather the rows they touch, price them and write the prices back."""
        priced, counted, sold = (
            np.flatnonzero(kind == code) for code in (COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD)
        )
        self.landed[rows[priced], rival[priced]] = amount[priced]
        self.stock[rows[counted]] = amount[counted]
        np.add.at(self.sold, rows[sold], 1)
        touched = np.unique(rows)
        padded = next(size for size in LADDER if size >= len(touched))
        integers = np.zeros((len(self.integers), padded), dtype=np.int32)
        floats = np.ones((len(self.floats), padded), dtype=np.float32)
        np.take(self.integers, touched, axis=1, out=integers[:, : len(touched)])
        np.take(self.floats, touched, axis=1, out=floats[:, : len(touched)])
        integers[RIVAL_COLUMN, : len(touched)] = self.landed[touched].min(axis=1)
        decided, _ = reprice(integers, floats)
        self.integers[IN_FORCE_COLUMN, touched] = np.asarray(decided)[PRICE_COLUMN, : len(touched)]


RIVAL_COLUMN = Integers._fields.index("rival_minor")
IN_FORCE_COLUMN = Integers._fields.index("in_force_minor")


def roofline(
    price_minor: np.ndarray,
    rivals: int,
    facts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Return what so many facts take: rows, kinds, rivals and amounts, in order."""
    warm()
    columns = Columns(price_minor, rivals)
    count = len(facts[0])
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, BATCH_FACTS):
        columns.apply(*(column[start : start + BATCH_FACTS] for column in facts))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"events": count, "cpu_s": cpu, "wall_s": wall}
