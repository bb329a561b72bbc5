"""Equality of what holds arrays; the structs themselves have none on purpose."""

from typing import Any

import numpy as np

from engine.decided import Decided
from engine.microbatch import FactColumns
from persistence.decision_records import DecisionRecord


def same_columns(one: FactColumns, other: FactColumns) -> bool:
    """Return whether two blocks hold the same values in arrays of the same types."""
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in FactColumns.__struct_fields__
    )


def same_decided(one: Decided, other: Decided) -> bool:
    """Return whether two decideds are the same, the quotes byte for byte."""
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        if name == "quotes"
        else getattr(one, name) == getattr(other, name)
        for name in Decided.__struct_fields__
    )


def same_record(one: Any, other: Any) -> bool:
    """Return whether two records of the decision log are the same."""
    if isinstance(one, DecisionRecord) and isinstance(other, DecisionRecord):
        return one.stamp == other.stamp and same_decided(one.decided, other.decided)
    return bool(one == other)
