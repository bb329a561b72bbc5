"""Answers to commands, remembered so that the same command given again gets the same answer."""

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.decided import Outcome
from engine.deltas import AnyDelta
from engine.microbatch import Position

COMMANDS_MAX = 20_000
"""Answers a shard remembers. When there are more, the retailer who holds most forgets first."""

COMMAND_WINDOW_MS = 86_400_000


class CommandWindow:
    """The outcomes of the last day's commands, at most ``COMMANDS_MAX``.

    Beyond, the retailer who holds most forgets his oldest: who holds no more than an equal share
    loses nothing, whatever the others send.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[int, bytes, Outcome]] = {}
        self._ids: dict[str, dict[str, None]] = {}  # of each retailer, oldest first

    def __len__(self) -> int:
        """Return how many answers are remembered."""
        return len(self._answers)

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
        self._ids.setdefault(delta.retailer, {})[outcome.command_id] = None

    def expire(self, now_ms: int) -> None:
        """Forget what is too old or too much."""
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest][0] + COMMAND_WINDOW_MS > now_ms:
                break
            self._forget(oldest)
        while len(self._answers) > COMMANDS_MAX:
            most = max(self._ids, key=lambda retailer: (len(self._ids[retailer]), retailer))
            self._forget((most, next(iter(self._ids[most]))))

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
            window._ids.setdefault(outcome.retailer, {})[outcome.command_id] = None
        return window

    def _forget(self, key: tuple[str, str]) -> None:
        retailer, command_id = key
        del self._answers[key]
        del self._ids[retailer][command_id]
        if not self._ids[retailer]:
            del self._ids[retailer]


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
