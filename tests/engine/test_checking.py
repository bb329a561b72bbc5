"""A decoding error lists what may stand at the place at fault, where that is a fixed list."""

from enum import Enum
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from engine.checking import explained


class Colour(Enum):
    """Names of an enumeration."""

    RED = "red"
    BLUE = "blue"


class Painted(Struct, tag_field="type", tag="painted", forbid_unknown_fields=True):
    """A thing with every kind of place."""

    colour: Colour | None = None
    sizes: tuple[Literal["small", "large"], ...] = ()
    parts: "list[Painted]" = []


class Bare(Struct, tag_field="type", tag="bare", forbid_unknown_fields=True):
    """Another thing."""

    name: str = ""


@pytest.mark.parametrize(
    ("given", "pointer", "fix"),
    [
        ({"type": "painted", "colour": "green"}, "/colour", "there are red, blue"),
        ({"type": "painted", "sizes": ["small", "huge"]}, "/sizes/1", "there are large, small"),
        (
            {"type": "painted", "parts": [{"type": "painted", "color": 1}]},
            "/parts/0/color",
            "there are colour, sizes, parts",
        ),
        ({"type": "bar"}, "/type", "there are painted, bare"),
        ({"type": "bare", "name": 7}, "/name", "send a string of the documented length"),
    ],
)
def test_the_fix_lists_the_names(given: dict[str, Any], pointer: str, fix: str) -> None:
    kind = Painted | Bare
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, kind)
    told = explained(caught.value, kind)
    assert (told.pointer, told.fix) == (pointer, fix)
    assert not explained(caught.value).fix.startswith("there are")
