"""Deciding again what was decided, and saying whether it came out the same."""

from enum import Enum
from hashlib import blake2b

import msgspec
import numpy as np

from engine.decided import Decided


class Agreement(Enum):
    """Whether a replayed microbatch came out as the record says."""

    EXACT = "exact"
    DIFFERENT = "different"


def agreement(ours: Decided, recorded: Decided) -> Agreement:
    """Compare everything, prices, reasons, times and digest alike."""
    return Agreement.DIFFERENT if differences(ours, recorded) else Agreement.EXACT


def differences(ours: Decided, recorded: Decided) -> tuple[str, ...]:
    """Return the names of the fields that differ."""
    found = [
        name
        for name in (
            "seq",
            "last_command",
            "last_delta",
            "decided_ms",
            "model",
            "digest",
            "catalogue",
            "exceptions",
            "outcomes",
        )
        if getattr(ours, name) != getattr(recorded, name)
    ]
    if not same_quotes(ours.quotes, recorded.quotes):
        found.append("quotes")
    return tuple(found)


def same_quotes(ours: np.ndarray, recorded: np.ndarray) -> bool:
    """Return whether two arrays of quotes are equal bit by bit (a NaN equals itself)."""
    return ours.dtype == recorded.dtype and ours.tobytes() == recorded.tobytes()


def chained(previous: int, decided: Decided, changed: list[bytes | np.ndarray]) -> int:
    """Return the digest that follows ``previous``: of the decided and of the state that changed.

    Args:
        changed: bytes, or arrays of one dimension whose bytes are meant, without a copy.
    """
    state = blake2b(digest_size=8)
    state.update(previous.to_bytes(8, "little"))
    head = (decided.seq, decided.last_command, decided.last_delta, decided.decided_ms)
    state.update(repr(head).encode())
    state.update(np.ascontiguousarray(decided.quotes).data)
    if decided.catalogue or decided.exceptions or decided.outcomes:
        told = (decided.catalogue, decided.exceptions, decided.outcomes)
        state.update(msgspec.msgpack.encode(told))
    for piece in changed:
        state.update(piece if isinstance(piece, bytes) else piece.data)
    return int.from_bytes(state.digest(), "little")
