"""Answers to commands, remembered so that the same command given again gets the same answer."""

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.decided import Outcome
from engine.deltas import AnyDelta
from engine.microbatch import Position

COMMANDS_MAX = 20_000
COMMAND_WINDOW_MS = 86_400_000


class CommandWindow:
    """The outcomes of the last day's commands, at most ``COMMANDS_MAX``, oldest forgotten first."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[int, bytes, Outcome]] = {}

    def answer(self, delta: AnyDelta, position: Position) -> Outcome | None:
        """Return the answer to a command that was given before, ``None`` if it is new.

        Another body under a known id is a conflict: one of the two was not meant.
        """
        assert delta.command_id is not None
        known = self._answers.get((delta.retailer, delta.command_id))
        if known is None:
            return None
        _, body, outcome = known
        if body != body_of(delta):
            return Outcome(
                command_id=delta.command_id,
                position=position,
                retailer=delta.retailer,
                actor=delta.actor or "",
                status="conflict",
                kind=type(delta).__name__,
                detail="/command_id: was used for another command; give this one an id of its own",
            )
        return replace(outcome, position=position)

    def remember(self, delta: AnyDelta, outcome: Outcome, now_ms: int) -> None:
        """Remember the answer to a command."""
        self._answers[delta.retailer, outcome.command_id] = (now_ms, body_of(delta), outcome)

    def expire(self, now_ms: int) -> None:
        """Forget what is too old or too much."""
        while self._answers:
            oldest = next(iter(self._answers))
            recent = self._answers[oldest][0] + COMMAND_WINDOW_MS > now_ms
            if recent and len(self._answers) <= COMMANDS_MAX:
                break
            del self._answers[oldest]

    def state(self) -> list[Any]:
        """Return everything, oldest first."""
        return [[at, body, outcome] for at, body, outcome in self._answers.values()]

    @classmethod
    def restore(cls, state: list[Any]) -> "CommandWindow":
        """Return what :meth:`state` described."""
        window = cls()
        for at, body, plain in state:
            outcome = msgspec.convert(plain, Outcome)
            window._answers[outcome.retailer, outcome.command_id] = (at, body, outcome)
        return window


def body_of(delta: AnyDelta) -> bytes:
    """Return eight bytes that differ where two commands do.

    When a command was given is not what it says: a caller who repeats it a minute later, with the
    same id, means the same command and gets the same answer.
    """
    body = msgspec.to_builtins(delta)
    body.pop("observed_ms", None)
    try:
        encoded = msgspec.msgpack.encode(body)
    except OverflowError:  # JSON's whole numbers have no end, those of MessagePack have
        encoded = repr(body).encode()
    return blake2b(encoded, digest_size=8).digest()
