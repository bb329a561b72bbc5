"""A deterministic event loop: virtual time, no sockets, no threads, and processes that die.

What runs next is drawn from all that could, by the seed; the same seed repeats every step. Each
callback belongs to a *process*: one that was killed never runs again, not even its ``finally``, and
one that is paused finds everything that happened meanwhile waiting, as after a SIGSTOP.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from inspect import CORO_CREATED, getcoroutinestate
from random import Random
from typing import Any


class Process:
    """Something that can be killed or paused as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.parked: list[Handle] = []

    def __repr__(self) -> str:
        return f"<{self.name}>"


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Handle:
    """A callback that is to run, perhaps at a time."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "process", "when_s")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when_s: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context.get(PROCESS)
        self.when_s = when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s


class Unhandled(Exception):
    """An exception reached the loop."""


class SimLoop(asyncio.AbstractEventLoop):
    """Runs coroutines in an order drawn by ``random``, in virtual time."""

    def __init__(self, random: Random, steps_max: int = 2_000_000) -> None:
        self.steps = 0
        self._steps_max = steps_max
        self._random = random.random
        self._now_s = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._timer_number = 0
        self._kept: list[Any] = []  # tasks of the dead: collecting them would run their finally
        self._environment = copy_context()
        self._environment.run(PROCESS.set, None)
        self.unhandled: list[str] = []

    # ----- what asyncio asks of a loop ---------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=self, name=name or "task", context=context
        )
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._kept.append(task)
        return task

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context or copy_context(), 0.0)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context or copy_context(), when)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run what wants a thread between two steps of others, soon; its result comes then."""

        async def run() -> Any:
            await asyncio.sleep(self._random() * 0.01)
            return func(*args)

        return self.create_task(run())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(f"{context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass

    # ----- what the world asks of it -----------------------------------------------------------

    def outside(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call later on nobody's behalf: a network and a broker outlive who used them."""
        self.call_at(self._now_s + delay_s, callback, *args, context=self._environment)

    def spawn(self, process: Process | None, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine as ``process``; all that it starts belongs to it."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(coro, context=context)

    def kill(self, process: Process) -> None:
        """End a process between two of its steps; nothing of it runs any more."""
        process.alive = False
        process.parked.clear()

    def pause(self, process: Process) -> None:
        process.paused = True

    def resume(self, process: Process) -> None:
        process.paused = False
        if process.alive:
            self._ready.extend(process.parked)
        process.parked = []

    def run(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run until ``coro`` is done, and return its result."""
        asyncio._set_running_loop(self)
        try:
            task = self.spawn(None, coro)
            while not task.done():
                self._run_once()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            for kept in self._kept:
                if kept.done():
                    if not kept.cancelled():
                        kept.exception()
                elif getcoroutinestate(kept.get_coro()) == CORO_CREATED:
                    kept.get_coro().close()

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._advance()
        index = int(self._random() * len(ready))
        handle = ready[index]
        ready[index] = ready[-1]
        ready.pop()
        if handle.is_cancelled:
            return
        process = handle.process
        if process is not None:
            if not process.alive:
                return
            if process.paused:
                process.parked.append(handle)
                return
        self.steps += 1
        if self.steps > self._steps_max:
            raise Unhandled("the simulation does not end: a busy loop")
        handle.context.run(handle.callback, *handle.args)

    def _advance(self) -> None:
        """Let time pass to the next timer."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Unhandled("nothing is left to do, and the world has not ended")
        self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.is_cancelled:
                self._ready.append(handle)
