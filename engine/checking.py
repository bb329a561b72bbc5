"""Deltas that are built in Python, held to the limits of the wire; and what is wrong, in words."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import msgspec.inspect
import numpy as np

from engine.deltas import AnyDelta
from engine.errors import RejectedInput

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
"""What ``msgspec`` raises on hostile bytes: bad UTF-8 is a ``ValueError``."""

_PLACE = re.compile(r" - at `(\$[^`]*)`$")
_NAMED = re.compile(r"(?:unknown|required) field `([^`]*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_FIXES = (
    ("unknown field", "leave it out: this type has no such field"),
    ("missing required", "add it"),
    ("malformed", "send one JSON object in UTF-8"),
    ("truncated", "send one whole JSON object in UTF-8"),
    ("codec can't decode", "send one JSON object in UTF-8"),
    ("Invalid value", "use a documented name, spelt as documented"),
    ("Invalid enum value", "use a documented name, spelt as documented"),
    ("matching regex", "use the documented characters"),
    ("Expected `int", "send a whole number within the bounds, money in minor units, time in ms"),
    ("Expected `float", "send a number within the bounds"),
    ("Expected `str", "send a string of the documented length"),
    ("Expected", "send a value of the documented type"),
)


def checked(deltas: Iterable[Any]) -> list[AnyDelta]:
    """Return deltas as they would come from the wire; numbers of numpy become Python's.

    Raises:
        RejectedInput: it names the place of the delta and the field, as ``/3/cost_minor``.
    """
    given = list(deltas)
    for place, delta in enumerate(given):
        if not isinstance(delta, AnyDelta):
            problem = f"a {type(delta).__name__} is no delta"
            raise RejectedInput(f"/{place}", problem, "build one of repricer's deltas")
    try:
        plain = msgspec.to_builtins(given, enc_hook=_plain)
    except (TypeError, *DECODE_ERRORS) as error:
        raise RejectedInput("", str(error), "build deltas of plain numbers and texts") from error
    try:
        return msgspec.convert(plain, list[AnyDelta])
    except DECODE_ERRORS:
        pass
    try:
        return msgspec.convert(_whole(plain), list[AnyDelta])
    except DECODE_ERRORS as error:
        told = explained(error)
        kind = type(given[int(told.pointer.split("/")[1])]).__name__
        raise RejectedInput(told.pointer, f"{kind}: {told.problem}", told.fix) from error


def explained(error: Exception, kind: Any = None) -> RejectedInput:
    """Return a decoding error as what the sender can act on.

    Where ``kind``, the type that was decoded, has a fixed list of names at the place at fault (the
    values of an enumeration, the fields of an object), the fix lists them. Where it wants a type
    with an ``EXAMPLE`` there, or one level up, the fix shows that.
    """
    text = str(error)[:300] if not isinstance(error, RecursionError) else "nested too deeply"
    place, pointer = _PLACE.search(text), ""
    if place is not None:
        text = text[: place.start()]
        for step in _STEP.finditer(place.group(1)):
            pointer += "/" + (step.group(1) or step.group(2))
    names = _names_at(kind, pointer, text) if kind is not None else []
    named = _NAMED.search(text)
    if named is not None:
        pointer += "/" + named.group(1).replace("~", "~0").replace("/", "~1")
    fix = next((fix for sign, fix in _FIXES if sign in text), "send the documented object")
    example = _example_at(kind, pointer) if kind is not None else ""
    if names:
        fix = f"there are {', '.join(names)}"
    elif example:
        fix = f"send {example}"
    return RejectedInput(pointer, text, fix)


def _names_at(kind: Any, pointer: str, text: str) -> list[str]:
    """Return the names that may stand at a place of ``kind``, none where that is no fixed list."""
    steps = [step for step in pointer.split("/") if step]
    places = list(_types_at(msgspec.inspect.type_info(kind), steps))
    if "Invalid value" in text:
        structs = [each for each in places if isinstance(each, msgspec.inspect.StructType)]
        return [str(each.tag) for each in structs if each.tag is not None]
    for found in places:
        if "unknown field" in text and isinstance(found, msgspec.inspect.StructType):
            return [field.encode_name for field in found.fields]
        if "Invalid enum value" in text and isinstance(found, msgspec.inspect.LiteralType):
            return [str(value) for value in found.values]
        if "Invalid enum value" in text and isinstance(found, msgspec.inspect.EnumType):
            return [str(each.value) for each in found.cls]
    return []


def _example_at(kind: Any, pointer: str) -> str:
    """Return how the value looks that ``kind`` wants at a place, or that the place is in."""
    steps = [step for step in pointer.split("/") if step]
    for depth in (len(steps), len(steps) - 1):
        for found in _types_at(msgspec.inspect.type_info(kind), steps[: max(depth, 0)]):
            if isinstance(found, msgspec.inspect.StructType) and hasattr(found.cls, "EXAMPLE"):
                return str(found.cls.EXAMPLE)
    return ""


def _types_at(found: msgspec.inspect.Type, steps: list[str]) -> Iterator[msgspec.inspect.Type]:
    """Yield what may stand where the steps of a pointer lead, by whichever member of a union."""
    if isinstance(found, msgspec.inspect.UnionType):
        for member in found.types:
            yield from _types_at(member, steps)
        return
    if not steps:
        yield found
    elif isinstance(found, msgspec.inspect.StructType):
        if steps == [found.tag_field]:
            yield found
        for field in found.fields:
            if field.encode_name == steps[0]:
                yield from _types_at(field.type, steps[1:])
    elif isinstance(found, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        yield from _types_at(found.item_type, steps[1:])


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} stands in a delta")


def _whole(value: Any) -> Any:
    """Return 3.0 as 3 wherever it stands: arithmetic makes floats of whole numbers."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
