"""Which model serves which listing, how well it foresees what is sold, and when it is rolled back.

A retailer has at most a champion, which serves all of his listings, and a canary, which serves a
share of them chosen by hash. A model lies *over* what is learnt in the stream and never in it:
it adds its prediction, by its precision, wherever a price is decided or sales are foreseen. So to
roll it back leaves no trace but the prices that it asked for, and those rows decide anew at once.

Each close of a period compares, on the same listings, what was foreseen with the model and without
it. A model whose error is by more than ``ROLLBACK_DROP`` the larger one is rolled back; a canary
that lasts its days becomes the champion. Both in decided time, inside ``apply``: replay repeats it.
"""

from typing import Any

import numpy as np

from engine.artefact import PREDICTION_DTYPE
from engine.listing_table import put
from kernels.hyperparameters import ROLLBACK_DROP, ROW_DAYS_MIN, SURE_SD

RULES = "rules"
"""Names no model: what is learnt in the stream alone."""

CHAMPION, CANARY = "champion", "canary"
PLACES = (CHAMPION, CANARY)

ERRORS = ("with", "without", "difference", "square", "row_days")
"""What is summed over listings and days: absolute errors, their difference and its square."""


class Served:
    """One model in its place, and how it fares."""

    def __init__(self, version: str, checksum: str, now_ms: int, share: float, days: int) -> None:
        self.version = version
        self.checksum = checksum
        self.since_ms = now_ms
        self.share = share  # of the listings, a canary's
        self.days_left = days  # closes until a canary becomes the champion
        self.errors = np.zeros(len(ERRORS))

    @property
    def salt(self) -> int:
        """Return what chooses a canary's listings, another for each model."""
        return int(self.checksum[:16] or "0", 16)

    def told(self) -> dict[str, Any]:
        """Return it in plain values."""
        return {
            "model": self.version,
            "checksum": self.checksum,
            "since_ms": self.since_ms,
            "share": self.share,
            "days_left": self.days_left,
            "errors": self.errors.tolist(),
        }

    @classmethod
    def restore(cls, told: dict[str, Any]) -> "Served":
        """Return what :meth:`told` described."""
        of = cls(
            told["model"], told["checksum"], told["since_ms"], told["share"], told["days_left"]
        )
        of.errors = np.array(told["errors"], dtype=np.float64)
        return of

    def judged(self) -> bool:
        """Return whether it has foreseen enough to be judged."""
        return bool(self.errors[ERRORS.index("row_days")] >= ROW_DAYS_MIN)

    def dropped(self) -> bool:
        """Return whether it foresees so much worse than was foreseen without it."""
        with_it, without, difference, square, _ = self.errors.tolist()
        if not self.judged() or with_it <= (1.0 + ROLLBACK_DROP) * without:
            return False
        return bool(difference > SURE_SD * np.sqrt(square))


class Serving:
    """All models of a shard: their names by retailer, and what they predict by row.

    Empty, and without memory, until one is promoted.
    """

    def __init__(self) -> None:
        self.retailers: dict[int, dict[str, Served]] = {}
        self.told_ms: dict[int, int] = {}  # newest word on a retailer's models
        self.rows = {place: np.zeros(0, dtype=PREDICTION_DTYPE) for place in PLACES}

    @property
    def any(self) -> bool:
        """Whether any model serves."""
        return bool(self.retailers)

    def of(self, number: int) -> dict[str, Served]:
        """Return a retailer's models by place."""
        return self.retailers.get(number, {})

    def newest(self) -> str:
        """Return the version that began to serve last, "" where none does."""
        found = [
            (each.since_ms, number, each.version)
            for number, places in self.retailers.items()
            for each in places.values()
        ]
        return max(found)[2] if found else ""

    def set(self, number: int, place: str, served: Served | None) -> None:
        """Put a model into its place, or nothing."""
        places = self.retailers.setdefault(number, {})
        if served is None:
            places.pop(place, None)
        else:
            places[place] = served
        if not places:
            del self.retailers[number]

    def write(self, place: str, rows: np.ndarray, predictions: np.ndarray, capacity: int) -> None:
        """Set what the model in a place predicts of rows."""
        self.fit(capacity, always=True)
        put(self.rows[place], rows, predictions)

    def clear(self, place: str, rows: np.ndarray) -> None:
        """Forget what the model in a place predicts of rows."""
        if len(self.rows[place]):
            self.rows[place][rows] = np.zeros(1, dtype=PREDICTION_DTYPE)

    def drop(self, number: int, rows: np.ndarray) -> None:
        """Forget a retailer's models."""
        self.retailers.pop(number, None)
        for place in PLACES:
            self.clear(place, rows)

    def forget(self, row: int) -> None:
        """Forget one listing."""
        for place in PLACES:
            self.clear(place, np.array([row]))

    def fit(self, capacity: int, *, always: bool = False) -> None:
        """Make room for rows."""
        if not (self.any or always):
            return
        for place, held in self.rows.items():
            if len(held) < capacity:
                longer = np.zeros(capacity, dtype=PREDICTION_DTYPE)
                longer[: len(held)] = held
                self.rows[place] = longer

    def take(self, place: str, rows: np.ndarray) -> np.ndarray:
        """Return a copy of what the model in a place predicts of rows."""
        held = self.rows[place]
        if not len(held):
            return np.zeros(len(rows), dtype=PREDICTION_DTYPE)
        return np.asarray(held.take(rows))

    # ----- checkpoints ---------------------------------------------------------------------------

    def saved(self, rows: np.ndarray) -> bytes:
        """Return the predictions of rows, for a checkpoint."""
        if not self.any:
            return b""
        return b"".join(self.take(place, rows).tobytes() for place in PLACES)

    def fill(self, rows: np.ndarray, saved: bytes, capacity: int) -> None:
        """Take rows from a checkpoint."""
        predictions = np.frombuffer(saved, dtype=PREDICTION_DTYPE).reshape(len(PLACES), -1)
        for place, of in zip(PLACES, predictions, strict=True):
            self.write(place, rows, of, capacity)

    def state(self) -> dict[str, Any]:
        """Return what is no row's, as plain values."""
        return {
            "told_ms": {str(number): at for number, at in sorted(self.told_ms.items())},
            "retailers": {
                str(number): {place: served.told() for place, served in sorted(places.items())}
                for number, places in sorted(self.retailers.items())
            },
        }

    def restore(self, state: dict[str, Any], capacity: int) -> None:
        """Take what :meth:`state` described; the rows were filled in before."""
        self.told_ms = {int(number): at for number, at in state.get("told_ms", {}).items()}
        for number, places in state.get("retailers", {}).items():
            for place, told in places.items():
                self.set(int(number), place, Served.restore(told))
        if self.any:
            self.fit(capacity)
        else:
            self.rows = {place: np.zeros(0, dtype=PREDICTION_DTYPE) for place in PLACES}


def chosen(keys: np.ndarray, served: Served) -> np.ndarray:
    """Return which listings a canary serves: a fair draw by hash, another for each model."""
    with np.errstate(over="ignore"):
        mixed = keys.astype(np.uint64) ^ np.uint64(served.salt)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    place = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.asarray(place < served.share)
