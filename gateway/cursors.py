"""Cursors: behind what a page of a list begins, as text that names its list.

A cursor of one list means nothing in another, so it is refused there and never taken for a name.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Literal

from gateway.problems import INVALID_REQUEST, FieldError, Problem

ListName = Literal["products", "policies"]
"""The lists that have pages."""

_PARTS = "\x1f"


def write_cursor(of: ListName, name: str) -> str:
    """Return the cursor of the page of a list that begins behind a name."""
    return urlsafe_b64encode(f"{of}{_PARTS}{name}".encode()).rstrip(b"=").decode()


def read_cursor(of: ListName, cursor: str) -> str:
    """Return the name that a page of a list begins behind.

    Decoding passes over characters that are none of its alphabet, so one that was cut or mended
    would begin a page anywhere; only what we would write ourselves is a cursor.

    Raises:
        Problem: the text is no cursor, or one of another list.
    """
    try:
        whole = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (Base64Error, ValueError) as fault:
        raise _no_cursor() from fault
    name = whole.removeprefix(f"{of}{_PARTS}")
    if not name or write_cursor(of, name) != cursor:
        raise _no_cursor()
    return name


def _no_cursor() -> Problem:
    """Return the refusal of a cursor that is none, with what to send."""
    detail = "not a cursor that we gave; send next_cursor as it came, or none for the first page"
    return Problem(INVALID_REQUEST, detail, errors=[FieldError(detail, parameter="cursor")])
