"""What a trained model says of each listing, as bytes with a checksum: a model's artefact.

A model is trained elsewhere; what it knows comes as a table, a row a listing: the level and season
of its demand, its elasticity, and how sure it is of either. So nothing of a model runs inside
``apply`` that could be slow or fail; a row that is no possible prediction is passed over, and its
listing is priced without the model.
"""

from hashlib import sha256

import msgspec
import numpy as np
from msgspec import Struct

from engine.errors import RejectedInput
from kernels.hyperparameters import (
    PREDICTED_ELASTICITY_MAX,
    PREDICTED_ELASTICITY_MIN,
    PREDICTED_LEVEL_MAX,
    PREDICTED_SD_MAX,
    PREDICTED_SD_MIN,
    PREDICTED_SEASON_MAX,
)

PREDICTION_DTYPE = np.dtype(
    [
        ("reference_minor", "<i4"),  # the price that the level belongs to; 0: nothing is predicted
        ("level", "<f4"),  # log units of an average day at that price
        ("elasticity", "<f4"),
        ("level_sd", "<f2"),
        ("elasticity_sd", "<f2"),
        ("season", "<f2", (7,)),  # log of Monday to Sunday over an average day
    ]
)
"""What a model predicts of one listing."""

MAGIC = b"repricer-model-1\n"
LISTINGS_MAX = 4_000_000


class Head(Struct, frozen=True, kw_only=True):
    """What stands before the rows."""

    version: str
    retailer: str
    listings: int


class Artefact(Struct, frozen=True, kw_only=True, eq=False):
    """One retailer's model, ready to be promoted."""

    version: str
    retailer: str
    checksum: str  # sha256 of its bytes
    keys: np.ndarray  # uint64[listings], ascending: engine.routing.key64
    predictions: np.ndarray  # PREDICTION_DTYPE[listings]


def encode_artefact(
    version: str, retailer: str, keys: np.ndarray, predictions: np.ndarray
) -> bytes:
    """Return the bytes of an artefact; rows may come in any order."""
    assert predictions.dtype == PREDICTION_DTYPE
    order = np.argsort(keys, kind="stable")
    head = Head(version=version, retailer=retailer, listings=len(keys))
    return b"".join(
        (
            MAGIC,
            msgspec.json.encode(head),
            b"\n",
            keys[order].astype("<u8").tobytes(),
            predictions[order].tobytes(),
        )
    )


def read_artefact(value: bytes, checksum: str) -> Artefact:
    """Return the artefact that ``value`` holds.

    Raises:
        RejectedInput: it is another one than was named, or none at all.
    """
    if sha256(value).hexdigest() != checksum:
        raise RejectedInput("/checksum", "the artefact has another checksum", "train it again")
    if not value.startswith(MAGIC):
        raise RejectedInput("/artefact", "these bytes are no model's", "name another model")
    line, _, rows = value[len(MAGIC) :].partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=Head)
    except msgspec.MsgspecError as error:
        raise RejectedInput("/artefact", f"its head cannot be read: {error}") from None
    count = head.listings
    if not 0 <= count <= LISTINGS_MAX or len(rows) != count * (8 + PREDICTION_DTYPE.itemsize):
        raise RejectedInput("/artefact", "it is not as long as its head says", "train it again")
    keys = np.frombuffer(rows[: 8 * count], dtype="<u8").astype(np.uint64)
    if not (keys[1:] > keys[:-1]).all():
        raise RejectedInput("/artefact", "its listings are not in order", "train it again")
    return Artefact(
        version=head.version,
        retailer=head.retailer,
        checksum=checksum,
        keys=keys,
        predictions=np.frombuffer(rows[8 * count :], dtype=PREDICTION_DTYPE),
    )


def sound(predictions: np.ndarray) -> np.ndarray:
    """Return which predictions are possible ones: finite, and within what demand can be."""
    level, elasticity = predictions["level"], predictions["elasticity"]
    # A comparison with NaN is false, so what is not a number is not sound.
    good = (predictions["reference_minor"] > 0) & (np.abs(level) <= PREDICTED_LEVEL_MAX)
    good &= (elasticity >= PREDICTED_ELASTICITY_MIN) & (elasticity <= PREDICTED_ELASTICITY_MAX)
    for name in ("level_sd", "elasticity_sd"):
        spread = predictions[name].astype(np.float32)
        good &= (spread >= PREDICTED_SD_MIN) & (spread <= PREDICTED_SD_MAX)
    season = predictions["season"].astype(np.float32)
    good &= (np.abs(season) <= PREDICTED_SEASON_MAX).all(axis=1)
    return np.asarray(good)
