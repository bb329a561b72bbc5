"""Reads that only the owner can answer, with a deadline: strong ones, and features.

Strong reads are coalesced without becoming weaker. One is answered after a mark that was appended
after the read arrived. So a read that arrives while another is under way may not share its answer,
which may be older than the question; it shares the next one, with everybody else who waits by then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from engine.errors import FailedDependency

AskOwner = Callable[[int, int, int], Awaitable[Mapping[str, Any]]]
"""Asks the owner of (shard) about (listing) within (deadline_ms)."""

AskFeatures = Callable[[int, Sequence[int], int, bool], Awaitable[Mapping[str, Any]]]
"""Asks the owner of (shard) for features of (listings) within (deadline_ms), (strong) or not."""

AskLearning = Callable[[int, str, int], Awaitable[Mapping[str, Any]]]
"""Asks the owner of (shard) what it has learnt of (retailer)'s demand within (deadline_ms)."""

AskFacts = Callable[[int, int, int], Awaitable[Mapping[str, Any]]]
"""Asks the owner of (shard) what explains the price of (listing) now, within (deadline_ms)."""

AskFork = Callable[[Mapping[str, Any], int], Awaitable[Mapping[str, Any]]]
"""Asks a fork of a shard a question, named in it, within (deadline_ms)."""

About = TypeVar("About")

ASKED_MAX = 1000
"""Listings asked about at the same time; more are refused at once."""

TOLD_MAX = 64
"""Slices of features, or retailers, asked for at the same time; more are refused at once."""


class RoutedReads:
    """Reads that only the owner can answer."""

    def __init__(self, ask: AskOwner) -> None:
        self._ask = ask
        self._running: dict[int, asyncio.Task[Mapping[str, Any]]] = {}
        self._next: dict[int, asyncio.Task[Mapping[str, Any]]] = {}

    def is_full(self) -> bool:
        """Whether so many reads are under way that another one would only wait."""
        return len(self._running) >= ASKED_MAX

    async def read(self, shard: int, listing: int, deadline_ms: int) -> Mapping[str, Any]:
        """Return the listing's state as its owner knows it now.

        Raises:
            TimeoutError: the owner did not answer in time.
            FailedDependency: there is no owner to ask.
        """
        task = self._join(shard, listing, deadline_ms)
        # Shielded: one caller's deadline must not end the read that others wait for.
        return await asyncio.wait_for(asyncio.shield(task), deadline_ms / 1000)

    def _join(self, shard: int, listing: int, deadline_ms: int) -> asyncio.Task[Mapping[str, Any]]:
        running = self._running.get(listing)
        if running is None:
            return self._start(shard, listing, deadline_ms)
        follower = self._next.get(listing)
        if follower is None:
            follower = asyncio.create_task(self._after(running, shard, listing, deadline_ms))
            follower.add_done_callback(_seen)
            self._next[listing] = follower
        return follower

    def _start(self, shard: int, listing: int, deadline_ms: int) -> asyncio.Task[Mapping[str, Any]]:
        async def ask() -> Mapping[str, Any]:
            try:
                return await asyncio.wait_for(
                    self._ask(shard, listing, deadline_ms), deadline_ms / 1000
                )
            finally:
                del self._running[listing]

        task = self._running[listing] = asyncio.create_task(ask())
        task.add_done_callback(_seen)
        return task

    async def _after(
        self,
        running: asyncio.Task[Mapping[str, Any]],
        shard: int,
        listing: int,
        deadline_ms: int,
    ) -> Mapping[str, Any]:
        await asyncio.wait((running,))
        del self._next[listing]
        return await self._join(shard, listing, deadline_ms)


class Questions:
    """A bounded number of questions to owners at a time, whose answers are of the present reign."""

    def __init__(self) -> None:
        self._asking = 0

    async def answered(
        self,
        shard: int,
        ask: Callable[[], Awaitable[Mapping[str, Any]]],
        deadline_ms: int,
        known_seq: int,
    ) -> Mapping[str, Any]:
        """Return an owner's answer, no older than what is known here.

        An owner that was replaced and has not noticed may still answer. What its successor decided
        comes after ``known_seq``, so who knows less than we do reigns no more.

        Raises:
            TimeoutError, DeadlinePassed: the owner did not answer in time.
            FailedDependency: there is no owner to ask, or too many ask.
        """
        if self._asking >= TOLD_MAX:
            raise FailedDependency(f"{self._asking} questions wait for owners already; ask again")
        self._asking += 1
        try:
            answer = await asyncio.wait_for(ask(), deadline_ms / 1000)
        finally:
            self._asking -= 1
        if answer["seq"] < known_seq:
            raise FailedDependency(f"shard {shard} was answered for by an owner of the past")
        return answer


class RoutedFeatures:
    """Features, which only the owner can tell."""

    def __init__(self, ask: AskFeatures) -> None:
        self._ask = ask
        self._questions = Questions()

    async def read(
        self,
        shard: int,
        listings: Sequence[int],
        deadline_ms: int,
        *,
        strong: bool,
        known_seq: int,
    ) -> Mapping[str, Any]:
        """Return features as their owner knows them; see :meth:`Questions.answered`."""
        return await self._questions.answered(
            shard,
            lambda: self._ask(shard, listings, deadline_ms, strong),
            deadline_ms,
            known_seq,
        )


class _Routed(Generic[About]):
    """What an owner tells about one thing of his, with the mark that it is as of."""

    def __init__(self, ask: Callable[[int, About, int], Awaitable[Mapping[str, Any]]]) -> None:
        self._ask = ask
        self._questions = Questions()

    async def read(
        self, shard: int, about: About, deadline_ms: int, *, known_seq: int
    ) -> Mapping[str, Any]:
        """Return what its owner tells; see :meth:`Questions.answered`."""
        return await self._questions.answered(
            shard, lambda: self._ask(shard, about, deadline_ms), deadline_ms, known_seq
        )


class RoutedLearning(_Routed[str]):
    """What is learnt of a retailer's demand, which only the owners of his shards can tell."""


class RoutedFacts(_Routed[int]):
    """What explains a listing's price now and no quote holds, which only its owner can tell.

    ``facts`` of an answer is null of a listing that is not known.
    """


def _seen(task: asyncio.Task[Mapping[str, Any]]) -> None:
    """Look at the fault of a read that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
