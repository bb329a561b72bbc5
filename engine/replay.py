"""Whether a replayed microbatch came out as it was recorded."""

from enum import Enum


class Agreement(Enum):
    """How a replay compares with the record. Whatever it says, the recorded values hold."""

    EXACT = "exact"
    DIFFERENT = "different"
