"""What the two plain loops share: the delta as they decode it, and their dictionary.

The pricing itself stands in each loop: nobody who writes one for speed pays a call a listing.
"""

import gc

import msgspec
from given import NO_PRICE, Given


class Delta(msgspec.Struct, gc=False):
    """The fields that matter; the decoder skips the others."""

    sku: str
    rival: str
    price_minor: int


def opened(work: Given) -> dict[str, list[int]]:
    """Return by SKU: four rivals' prices, target, floor, and the price that was told last.

    The garbage collector is off from then on: nothing here refers to itself.
    """
    state = {
        sku: [NO_PRICE, NO_PRICE, NO_PRICE, NO_PRICE, *numbers]
        for sku, numbers in work.listings().items()
    }
    gc.freeze()
    gc.disable()
    return state
