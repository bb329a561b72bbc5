"""One JSON document judged slowly and thoroughly: what is wrong with it, where, and the fix.

``msgspec`` decodes fast but lets the last of two equal keys win, raises ``RecursionError`` at a
depth that hangs on the caller's own, and keeps integers of any size. Two parsers that disagree
about a document are a way to smuggle a price past whoever looked at it first, so all three are
refused here, deterministically.
"""

import json
import re
from typing import Any

import msgspec

from engine.checking import DECODE_ERRORS, explained
from engine.deltas import AnyDelta
from engine.errors import RejectedInput

JSON_BYTES_MAX = 262_144
"""Largest JSON record."""

DEPTH_MAX = 16
"""Deepest nesting of objects and arrays, the document itself being 1."""

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_ANY = msgspec.json.Decoder(AnyDelta)


def decode_document(value: bytes) -> AnyDelta:
    """Return the delta that the document holds.

    Raises:
        RejectedInput: it names a JSON pointer and the fix; no other exception comes out.
    """
    if len(value) > JSON_BYTES_MAX:
        problem = f"{len(value)} bytes are over the limit of {JSON_BYTES_MAX}"
        raise RejectedInput("", problem, "send one delta a record")
    refuse_depth(value)
    try:
        delta: AnyDelta = _ANY.decode(value)
    except DECODE_ERRORS as error:
        raise explained(error) from error
    refuse_duplicate_keys(value)
    fields = getattr(delta, "fields", None)
    if fields:
        _refuse_huge_integers(fields, "/fields")
    return delta


def refuse_depth(value: bytes) -> None:
    """Raise ``RejectedInput`` when objects and arrays nest deeper than ``DEPTH_MAX``."""
    if value.count(b"{") + value.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for token in _TOKENS.finditer(value):
        first = token.group()[:1]
        if first in b"{[":
            depth += 1
            if depth > DEPTH_MAX:
                problem = f"nested deeper than {DEPTH_MAX} levels"
                raise RejectedInput("", problem, "send the flat documented object")
        elif first in b"}]":
            depth -= 1


def refuse_duplicate_keys(value: bytes) -> None:
    """Raise ``RejectedInput`` when an object names a key twice. ``value`` must be valid JSON.

    A colon stands behind each key and else only within strings, and without a backslash a string
    reads as it is written. So when the colons are as many as the distinct keys and the colons in
    the decoded strings, no key was written twice; only otherwise is it worth a slow look.
    """
    colons = value.count(b":")
    if colons <= 1:
        return  # behind a key that stands twice there are two
    if b"\\" not in value and colons == _colons(msgspec.json.decode(value)):
        return
    # The numbers are left alone: only keys matter, and a huge integer is slow to convert.
    pairs = json.loads(value.decode(), object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    pointer = _first_duplicate(pairs, "")
    if pointer is not None:
        raise RejectedInput(pointer, "this key occurs twice", "send each key once")


def has_duplicate_keys(value: bytes) -> bool:
    """Return whether an object of the valid document names a key twice."""
    try:
        refuse_duplicate_keys(value)
    except RejectedInput:
        return True
    return False


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that a second one of a name is still seen."""


def _first_duplicate(node: Any, pointer: str) -> str | None:
    if isinstance(node, _Pairs):
        seen: set[str] = set()
        for name, _ in node:
            if name in seen:
                return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            seen.add(name)
        children = [(f"{pointer}/{name}", child) for name, child in node]
    elif isinstance(node, list):
        children = [(f"{pointer}/{index}", child) for index, child in enumerate(node)]
    else:
        return None
    for place, child in children:
        found = _first_duplicate(child, place)
        if found is not None:
            return found
    return None


def _colons(node: Any) -> int:
    """Return how many colons the node's JSON holds if no key is written twice."""
    if isinstance(node, str):
        return node.count(":")
    if isinstance(node, dict):
        return sum(1 + name.count(":") + _colons(child) for name, child in node.items())
    if isinstance(node, list):
        return sum(map(_colons, node))
    return 0


def _refuse_huge_integers(node: Any, pointer: str) -> None:
    """Raise ``RejectedInput`` for an integer beyond 64 bits: no record could hold it."""
    if isinstance(node, int):
        if not -(2**63) <= node < 2**64:
            raise RejectedInput(pointer, "an integer beyond 64 bits", "send a smaller number")
    elif isinstance(node, dict):
        for name, child in node.items():
            _refuse_huge_integers(child, f"{pointer}/{name}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            _refuse_huge_integers(child, f"{pointer}/{index}")
