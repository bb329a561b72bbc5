"""Forks of live shards, in a process of their own: what plans and what-ifs are asked of.

A fork is made as a successor is: the newest checkpoint, then the log up to its end. So the owner is
neither touched nor held up, and a fork knows all that was recorded when the question came. The
process answers one question at a time, a line each, and keeps nothing between them but what is
compiled; it yields to owners, and ends when nobody asked for a while.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.assembly import make_logs
from cluster.priority import stand_back
from cluster.ray_node import ONE_THREAD, compiled_kernels
from cluster.settings import Settings
from engine.errors import (
    DeadlinePassed,
    FailedDependency,
    NotSupported,
    PricingError,
    RejectedInput,
)

IDLE_S = 600
"""So long the process is kept for another question: it holds some 300 MB."""

ASKED_MAX = 8
"""Questions that may wait for the one before them; more are refused at once."""

ANSWER_BYTES_MAX = 64 * 2**20

LOGGER = logging.getLogger("repricer.forking")


class Forks:
    """Asks the process of forks, which is started for the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._asked = 0
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, question: Mapping[str, Any], deadline_ms: int) -> Mapping[str, Any]:
        """Return the answer, or a ``problem`` where the shard would refuse what is asked.

        Raises:
            DeadlinePassed: it took too long; the process is ended.
            FailedDependency: too many ask, or what a fork is made of cannot be had.
        """
        if self._asked >= ASKED_MAX:
            raise FailedDependency(f"{ASKED_MAX} questions wait already; ask again in a moment")
        self._asked += 1
        try:
            async with asyncio.timeout(deadline_ms / 1000), self._lock:
                answer = await self._answer(question)
        except TimeoutError:
            raise DeadlinePassed(f"no answer from a fork within {deadline_ms} ms") from None
        finally:
            self._asked -= 1
            self._end_when_idle()
        if "failed" in answer:
            raise FailedDependency(answer["failed"])
        return answer

    async def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)

    def _end(self) -> None:
        # Its input closed, it ends by itself.
        if not self._asked and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process = None

    async def _answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except asyncio.CancelledError:
            # Its answer would be taken for that to the next question.
            await self.close()
            raise
        except ConnectionError:
            line = b""
        if not line:
            await self.close()
            raise FailedDependency("the process of forks ended; ask again")
        answer: Mapping[str, Any] = msgspec.json.decode(line)
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cluster.forking",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, **compiled_kernels(self._settings)},
            limit=ANSWER_BYTES_MAX,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        return self._process


async def fork_of(settings: Settings, shard: int) -> Any:
    """Return a shard that is as the live one was when its last decision was recorded.

    Raises:
        LogTruncated: log and checkpoints do not reach back far enough.
        FailedDependency: the log does not answer.
    """
    from cluster.recording import open_recording

    logs = make_logs(settings)
    try:
        async with open_recording(settings, logs, shard, "newest") as recording:
            async for recorded in recording.microbatches():
                recording.shard.replay(recorded.batch, recorded.decided, recorded.artefacts)
            return recording.shard
    finally:
        await logs.close()


def answered(settings: Settings, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to one question as plain values."""
    from engine.catalogue import Refused

    began = time.monotonic()
    try:
        fork = asyncio.run(fork_of(settings, question["shard"]))
        forked = time.monotonic()
        answer = _foreseen(fork, question)
    except RejectedInput as error:
        kind = "not_supported" if isinstance(error, NotSupported) else "rejected"
        detail = error.problem + (f": {error.fix}" if error.fix else "")
        return {"problem": {"kind": kind, "pointer": error.pointer, "detail": detail}}
    except Refused as error:
        pointer, _, detail = error.reason.partition(": ")
        return {"problem": {"kind": "rejected", "pointer": pointer, "detail": detail}}
    except PricingError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    answer["fork_ms"] = round((forked - began) * 1e3)
    answer["took_ms"] = round((time.monotonic() - began) * 1e3)
    answer["processor_s"] = time.process_time()  # since the process began
    return answer


def _foreseen(fork: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    from engine.deltas import ScopeChange
    from engine.foresight import plan, told, what_if
    from engine.suppositions import Case, Selection

    mark = {"seq": fork.seq, "digest": f"{fork.digest:016x}"}
    retailer, limit = question["retailer"], question["limit"]
    seen = []
    concerned: tuple[int, ...] = ()
    if question["kind"] == "plan":
        changes = msgspec.convert(question["changes"], tuple[ScopeChange, ...])
        foreseen = plan(fork, retailer, changes)
        seen.append(told(fork, foreseen, limit))
        concerned = foreseen.concerned
    else:
        selection = msgspec.convert(question["selection"], Selection)
        cases = msgspec.convert(question["cases"], tuple[Case, ...])
        for at, case in enumerate(cases):
            # A question uses its fork up; the last case may have the first one.
            one = fork.fork() if at + 1 < len(cases) else fork
            foreseen = what_if(one, retailer, selection, case)
            seen.append(told(one, foreseen, limit))
    planned = msgspec.to_builtins(foreseen.planned)
    return {
        **{"shard": question["shard"], **mark, "planned": planned},
        **{"seen": seen, "concerned": concerned},
    }


def main() -> int:
    """Read the settings, then answer questions until nobody asks any more."""
    stand_back()  # prices are decided first
    settings = Settings.model_validate_json(sys.stdin.readline())
    while line := sys.stdin.readline():
        answer = answered(settings, msgspec.json.decode(line))
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
