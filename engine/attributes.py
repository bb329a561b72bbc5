"""A listing's brand and tags, and what they say of its elasticity beside its category.

What is known of an attribute is learnt where a retailer's table is fitted, from the rows that are
fitted, and kept by name (64 bits of a hash, its category's name in it): as many as those rows have,
whatever else the catalogue holds. A listing that was never sold has its brand's elasticity from its
first decision on. Where no listing has a brand or a tag nothing is worked out, and nothing kept.
"""

from functools import lru_cache

import numpy as np

from engine.listing_table import ListingText
from engine.memory import Memory
from engine.routing import name64
from kernels.attributes import (
    BRAND,
    TAG,
    Effects,
    Observed,
    Worn,
    added,
    effects,
    factors,
    sizes_tried,
    sums_by_others,
)
from kernels.hyperparameters import ATTRIBUTE_LISTINGS_MIN, ATTRIBUTES_A_CATEGORY

TAGS_MAX = 7
"""Of a listing that has more, the first by name count."""


def attributes_of(memory: Memory, rows: np.ndarray) -> np.ndarray:
    """Return uint64[rows, 1 + TAGS_MAX], each listing's brand and tags by name, 0: none."""
    names = [_names(text) for text in memory.listings.texts_of(rows)]
    return np.array(names, dtype=np.uint64).reshape(len(rows), 1 + TAGS_MAX)


def _names(text: ListingText) -> tuple[int, ...]:
    return _named(text.category, text.brand, tuple(sorted(set(text.tags))[:TAGS_MAX]))


@lru_cache(maxsize=65_536)  # a function of its arguments, asked for each listing that decides
def _named(category: str, brand: str, tags: tuple[str, ...]) -> tuple[int, ...]:
    of_brand = name64(f"brand\x1f{category}\x1f{brand}") if brand else 0
    of_tags = [name64(f"tag\x1f{category}\x1f{tag}") for tag in tags]
    return (of_brand, *of_tags, *[0] * (TAGS_MAX - len(of_tags)))


def worn(attributes: np.ndarray, category: np.ndarray) -> tuple[Worn, np.ndarray]:
    """Return which attributes rows have, of those that several of them have, and their names.

    Of a category those count that most of its rows have.

    Args:
        attributes: uint64[rows, most of a listing], 0: none.
        category: int64[rows].
    """
    names, first, number, counts = np.unique(
        attributes.ravel(), return_index=True, return_inverse=True, return_counts=True
    )
    number = number.reshape(attributes.shape)
    row, column = np.unravel_index(first, attributes.shape)
    of, kinds = category[row], np.where(column == 0, BRAND, TAG)
    counts = np.where(names == 0, 0, counts)
    order = np.lexsort((names, -counts, of))
    starts = np.searchsorted(of[order], np.arange(int(category.max(initial=0)) + 1))
    places = np.empty(len(names), dtype=np.int64)
    places[order] = np.arange(len(names)) - starts[of[order]]
    kept = (counts >= ATTRIBUTE_LISTINGS_MIN) & (places < ATTRIBUTES_A_CATEGORY)
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1)
    return Worn(category, renumbered[number], kinds[kept], places[kept]), names[kept]


def learnt_effects(
    attributes: np.ndarray, category: np.ndarray, seen: Observed, bias_sd: float
) -> tuple[Effects, np.ndarray]:
    """Return what attributes say, by what is seen of the listings that have them.

    Also returns float64[rows], the factors by which others than a listing itself foresee its mean.
    """
    what, names = worn(attributes, category)
    shares, size = effects(seen, what, bias_sd, sizes_tried(what))
    return Effects(names, shares), factors(sums_by_others(seen, what, bias_sd, size))


def factors_of(memory: Memory, of: Effects, rows: np.ndarray) -> np.ndarray | None:
    """Return float64[rows], factors on the means of rows' categories; ``None``: 1 for each."""
    if not len(of.names) or not len(rows):
        return None
    attributes = attributes_of(memory, rows)
    place = np.minimum(np.searchsorted(of.names, attributes), len(of.names) - 1)
    place = np.where(of.names[place] == attributes, place, -1)
    return factors(added(of.shares, place))
