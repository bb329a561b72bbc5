"""Whether a name is one that ``engine.deltas`` takes, asked one name at a time."""

from typing import Any

import msgspec


def is_valid(name: Any, wanted: Any) -> bool:
    """Return whether ``name`` fits the annotated type ``wanted``, such as ``RetailerId``."""
    try:
        msgspec.convert(name, wanted)
    except msgspec.ValidationError:
        return False
    return True
