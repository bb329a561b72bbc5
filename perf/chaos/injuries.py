"""How a planned fault is done to the site, and when it is over.

A fault is in force from the strike until what it hit works again, or until a limit has passed. The
rule that bounds them: at most ``TOGETHER_MAX`` at a time, and one a component; Ray's death counts
for every owner. Every ``BREATHER`` faults the run waits until everything lives again, so that a
long storm is many storms.
"""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from msgspec import Struct

from cluster.processes import ProcessName, kill, lives
from cluster.servers.process import ServerFailed
from cluster.trial import shift_clock
from perf.chaos.plan import OURS, RAY, SERVERS, Fault
from perf.chaos.site import Site, owns_port
from perf.faultproxy import Mode

TOGETHER_MAX: Final = 3
BREATHER: Final = 25
THERE_S: Final = 25.0
"""How long a fault waits for its target to be there; then it is missed, and counted as missed."""

BACK_S: Final = 45.0
"""How long what was hit is waited for; the fault then counts as over all the same."""

FAILING_S: Final = 20.0
ENDING_S: Final = 5.0
DELAY_S: Final = 0.4

CALLS: Final = {
    "requests": {"req_failure_prob": 25, "resp_failure_prob": 0},
    "responses": {"req_failure_prob": 0, "resp_failure_prob": 25},
    "both": {"req_failure_prob": 15, "resp_failure_prob": 15},
}
"""Percent of Ray's calls that fail, in Ray's own words; ``slow`` delays them instead."""


class Struck(Struct, kw_only=True):
    """A fault as it happened."""

    fault: Fault
    planned_ms: int
    fired_ms: int = 0  # 0: it was missed
    over_ms: int = 0
    note: str = ""

    @property
    def fired(self) -> bool:
        """Whether it hit something."""
        return self.fired_ms > 0


class Injuries:
    """Strikes the site; ``reigns`` says how many owners of each shard have begun so far."""

    def __init__(self, site: Site, reigns: Callable[[int], int]) -> None:
        self.struck: list[Struck] = []
        self._site = site
        self._reigns = reigns
        self._in_force: dict[str, Struck] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []
        self._changed = asyncio.Event()

    @property
    def in_force(self) -> list[Struck]:
        """Return what is in force now."""
        return list(self._in_force.values())

    def clock_behind(self, target: str, from_ms: int, to_ms: int) -> bool:
        """Whether a component's clock was behind at some time between two moments."""
        return any(
            (each.fault.kind, each.fault.target) == ("clock", target)
            and int(each.fault.how) < 0
            and 0 < each.fired_ms <= to_ms
            and (not each.over_ms or each.over_ms >= from_ms)
            for each in self.struck
        )

    async def strike(self, fault: Fault) -> Struck:
        """Do it as soon as the rule allows and its target is there; return when it has begun."""
        self._raise_what_failed()
        struck = Struck(fault=fault, planned_ms=_now_ms())
        self.struck.append(struck)
        keys = self._keys(fault)
        while len(self._in_force) >= TOGETHER_MAX or keys & self._taken():
            self._changed.clear()
            await self._changed.wait()
        self._in_force[f"{fault.number}"] = struck
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._live_through(struck, begun))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await begun
        return struck

    async def over(self) -> None:
        """Return when no fault is in force any more; raise what one of them raised."""
        while self._tasks:
            await asyncio.wait(self._tasks)
            await asyncio.sleep(0)  # their last words are kept by callbacks
        self._raise_what_failed()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Keep why a fault could not be done or undone: it mostly ends while nobody waits."""
        self._tasks.discard(task)
        if not task.cancelled() and (why := task.exception()) is not None:
            self._failed.append(why)

    def _raise_what_failed(self) -> None:
        """Raise it: a storm with a fault that was not done is not the one that was asked for."""
        if self._failed:
            raise self._failed[0]

    async def heal(self) -> None:
        """Undo everything at once: the run ends early."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _taken(self) -> set[str]:
        return {key for each in self._in_force.values() for key in self._keys(each.fault)}

    def _keys(self, fault: Fault) -> set[str]:
        """Return the components that a fault needs for itself."""
        if fault.target in RAY or fault.kind == "ray":
            # Ray's death is every owner's; and a start through a broken Ray needs its Ray.
            owners = {f"owner:{shard}" for shard in range(self._site.shards)}
            return {*RAY, *owners}
        if fault.target == "folder":
            return {"folder"}
        return {fault.target}

    async def _live_through(self, struck: Struck, begun: "asyncio.Future[None]") -> None:
        fault = struck.fault
        acts: dict[str, Callable[[Struck], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "cut": self._cut,
            "disk": self._disk,
            "clock": self._clock,
            "ray": self._ray,
        }

        async def tell() -> None:
            while not struck.fired_ms and not struck.over_ms:
                await asyncio.sleep(0.02)
            if not begun.done():
                begun.set_result(None)

        telling = asyncio.ensure_future(tell())
        try:
            await acts[fault.kind](struck)
        finally:
            struck.over_ms = _now_ms()
            self._in_force.pop(f"{fault.number}", None)
            self._changed.set()
            if not begun.done():
                begun.set_result(None)
            telling.cancel()

    # ----- the kinds ----------------------------------------------------------------------------

    async def _kill(self, struck: Struck) -> None:
        fault = struck.fault
        if fault.target in SERVERS:
            kill_server = self._site.server(fault.target).kill
            await _while_planned(struck, kill_server, partial(self._start_server, fault.target))
            return
        process = await self._there(fault.target)
        if process is None:
            struck.note = "its target was not there"
            return
        reigns = self._all_reigns()
        struck.fired_ms = _now_ms()
        kill(process)
        await self._back(struck, process, reigns)

    async def _pause(self, struck: Struck) -> None:
        fault = struck.fault
        if fault.target in SERVERS:
            server = self._site.server(fault.target)
            await _while_planned(struck, server.pause, server.resume)
            return
        process = await self._there(fault.target)
        if process is None or not kill(process, signal.SIGSTOP):
            struck.note = "its target was not there"
            return
        struck.fired_ms = _now_ms()
        reigns = self._all_reigns()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            woke = kill(process, signal.SIGCONT)
        if not woke:
            struck.note = "it was replaced meanwhile"
            await self._back(struck, process, reigns)

    async def _cut(self, struck: Struck) -> None:
        fault = struck.fault
        mode, _, who = fault.how.partition(" ")
        proxy = self._site.proxies[fault.target]
        chosen = None
        if who not in ("", "everybody"):
            process = await self._there(who)
            if process is None:
                struck.note = f"{who} was not there"
                return
            chosen = owns_port(process)
        proxy.delay_s = DELAY_S
        before = proxy.harmed
        try:
            await _while_planned(
                struck, partial(proxy.set, Mode(mode), chosen), partial(proxy.set, Mode.PASS)
            )
        finally:
            struck.note = f"{proxy.harmed - before} frames harmed"

    async def _disk(self, struck: Struck) -> None:
        fault = struck.fault
        disk = self._site.disks[fault.target]
        struck.fired_ms = _now_ms()
        used = await asyncio.to_thread(disk.fill)
        struck.note = f"{used // 2**20} MiB used"
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await _surely(disk.empty)
            if fault.target in SERVERS:
                # A broker ends itself on a full disk, and others may; whoever runs them restarts
                # them once there is room.
                await _surely(self._start_if_it_ends, fault.target)

    async def _clock(self, struck: Struck) -> None:
        fault = struck.fault
        place, reigns = self._site.clock_place(fault.target), self._all_reigns()
        struck.fired_ms = _now_ms()
        shift_clock(self._site.clocks, place, int(fault.how))
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            shift_clock(self._site.clocks, place, 0)
        if fault.target == "gateway":
            await self._until(lambda: self._site.process(fault.target) is not None)
        elif self._site.process(fault.target) is None:
            await self._until(lambda: self._reigns(place) > reigns[place])

    async def _ray(self, struck: Struck) -> None:
        """Kill an owner and whoever asks Ray for the next, and let Ray's calls fail meanwhile."""
        fault, site = struck.fault, self._site
        process = await self._there(fault.target)
        if process is None:
            struck.note = "its target was not there"
            return
        shard, reigns = int(fault.target.partition(":")[2]), self._all_reigns()
        if fault.how == "slow":
            line = "RAY_testing_asio_delay_us=*=10000:200000"
        else:
            failing = {"*": {"num_failures": 20, **CALLS[fault.how]}}
            line = f"RAY_testing_rpc_failure={json.dumps(failing)}"
        site.ray_file.write_text(line + "\n")
        before = site.failed_calls()
        try:
            placing = site.process("placement")
            if placing is not None:
                kill(placing)
            struck.fired_ms = _now_ms()
            kill(process)
            began = time.monotonic()
            await self._until(lambda: self._reigns(shard) > reigns[shard], FAILING_S)
            calls = site.failed_calls() - before
            struck.note = f"{calls} calls failed, {time.monotonic() - began:.1f} s to a successor"
        finally:
            site.ray_file.unlink(missing_ok=True)
        if self._reigns(shard) <= reigns[shard]:
            placing = site.process("placement")  # the next one starts with calls that work
            if placing is not None:
                kill(placing)
            struck.note = f"{calls} calls failed, no successor meanwhile"
            await self._until(lambda: self._reigns(shard) > reigns[shard])

    # ----- waiting ------------------------------------------------------------------------------

    async def _there(self, target: str) -> ProcessName | None:
        """Wait a while for a component to be there."""
        deadline = time.monotonic() + THERE_S
        while (found := self._site.process(target)) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return found

    def _all_reigns(self) -> list[int]:
        return [self._reigns(shard) for shard in range(self._site.shards)]

    async def _back(self, struck: Struck, process: ProcessName, reigns: list[int]) -> None:
        """Wait until what was killed has a successor."""
        target = struck.fault.target
        if target.startswith("owner:"):
            shard = int(target.partition(":")[2])
            is_back = await self._until(lambda: self._reigns(shard) > reigns[shard])
        elif target == "raylet":
            is_back = await self._until(
                lambda: all(
                    now > before for now, before in zip(self._all_reigns(), reigns, strict=True)
                )
            )
        else:
            assert target in OURS or target in RAY
            is_back = await self._until(
                lambda: self._site.process(target) not in (None, process) and not lives(process)
            )
        if not is_back:
            struck.note = f"not back within {BACK_S:.0f} s"

    async def _until(self, reached: Callable[[], bool], wait_s: float = BACK_S) -> bool:
        deadline = time.monotonic() + wait_s
        while not reached():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    def _start_server(self, name: str) -> None:
        """Start a server that ended, whether we killed it or its full disk did."""
        server = self._site.server(name)
        try:
            assert server.pid
        except ServerFailed:
            server.start()

    def _start_if_it_ends(self, name: str) -> None:
        """Start a server again that a full disk ends, perhaps a moment after there is room."""
        deadline = time.monotonic() + ENDING_S
        while time.monotonic() < deadline:
            self._start_server(name)
            time.sleep(0.25)


async def _while_planned(
    struck: Struck, hit: Callable[[], object], undo: Callable[[], object]
) -> None:
    """Do something, leave it so for as long as was planned, and undo it in any case."""
    struck.fired_ms = _now_ms()
    await asyncio.to_thread(hit)
    try:
        await asyncio.sleep(struck.fault.seconds)
    finally:
        await _surely(undo)


async def _surely(act: Callable[..., object], *arguments: object) -> None:
    """Undo something in a thread, also while we are being cancelled."""
    await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(act, *arguments)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
