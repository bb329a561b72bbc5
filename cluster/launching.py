"""The supervisor's hands: owners are started, asked how far they are, watched and ended.

What speaks to Ray is a child process (``cluster.placement``); all else is done to the owner's
process itself, so that neither Ray nor its death is in the way.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from actors.starts import Launched, Phase, Start
from cluster.control import ControlClient
from cluster.owner import End, end_file, owner_card_file, owner_cards, spare_cards, spare_file
from cluster.placement import LAUNCH_DEADLINE_S, Order, Placed
from cluster.processes import ProcessName, gone, kill, lives, name_of, run_delays_ms
from cluster.ray_node import ray_environment
from cluster.settings import Settings
from engine.errors import FailedDependency


class RayLauncher:
    """Starts, watches and ends owners; the supervisor's hands."""

    def __init__(self, settings: Settings, settings_file: Path, control: ControlClient) -> None:
        self._settings = settings
        self._settings_file = settings_file
        self._control = control
        self._child: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._names: dict[str, ProcessName] = {}
        self._spare: tuple[str, ProcessName] | None = None
        self._delays: dict[str, dict[int, float]] = {}

    async def launch(self, start: Start) -> Launched:
        """Have the child begin it in the spare, or in a new actor; waits for a spare half made.

        Raises:
            FailedDependency: Ray did not in time.
        """
        async with self._one_at_a_time:
            spare = self._spare if self.has_spare() else None
            self._spare = None
            name, process = spare or ("", None)
            order = Order(spare=name, spare_process=process, start=start)
            try:
                placed = await self._order(order)
            except FailedDependency:
                if process is not None:
                    kill(process)  # it may begin all the same, and this start is given up
                raise
        launched = Launched(start=start, pid=placed.pid, address=placed.address)
        self.know(launched)
        return launched

    async def prepare(self) -> None:
        """Have the child make a spare.

        Raises:
            FailedDependency: Ray did not in time.
        """
        async with self._one_at_a_time:
            if self.has_spare():
                return
            self.clear_spares()  # one that another supervisor ordered may have come since
            name = f"spare-{secrets.token_hex(4)}"
            placed = await self._order(Order(spare=name))
            process = name_of(placed.pid)
            self._spare = (name, process) if process is not None else None

    def has_spare(self) -> bool:
        """Whether a spare waits; one that died is none."""
        return self._spare is not None and lives(self._spare[1])

    def clear_spares(self) -> None:
        """End every spare that waits: of a supervisor that is gone, nobody would use them."""
        for name, process in spare_cards(self._settings.run_folder).items():
            kill(process)
            spare_file(self._settings.run_folder, name).unlink(missing_ok=True)

    def starved_ms(self, launched: Launched) -> float:
        """Return how long one of its threads waited for a processor since this was last asked.

        The first answer is 0, and so is every one where the kernel does not count.
        """
        name = launched.start.name
        before, now = self._delays.get(name), run_delays_ms(launched.pid)
        self._delays[name] = now
        if before is None:
            return 0.0
        return max((now[thread] - before[thread] for thread in now if thread in before), default=0)

    def know(self, launched: Launched) -> None:
        """Remember which very process a pid means, while it surely means that one."""
        name = name_of(launched.pid)
        if name is not None:
            self._names[launched.start.name] = name

    async def take_over(self, launched: Launched, pardoned: Sequence[bytes]) -> None:
        """Tell a standby to seal."""
        told = {"pardoned": [owner.hex() for owner in pardoned]}
        await self._control.act(launched.address, "take-over", told)

    def kill(self, launched: Launched) -> None:
        """Send SIGKILL to the very process."""
        name = self._names.get(launched.start.name)
        if name is not None:
            kill(name)

    async def gone(self, launched: Launched) -> tuple[str | None, str]:
        """Return when the process is gone, with the word it left."""
        name = self._names.get(launched.start.name)
        if name is not None:
            await gone(name)
        self._names.pop(launched.start.name, None)
        self._delays.pop(launched.start.name, None)
        run_folder = self._settings.run_folder
        owner_card_file(run_folder, launched.start.name).unlink(missing_ok=True)
        try:
            word = end_file(run_folder, launched.start.name).read_bytes()
            end = msgspec.json.decode(word, type=End)
        except (OSError, msgspec.MsgspecError):
            return None, "it left no word"
        return end.end, end.detail

    async def progress(self, launched: Launched) -> tuple[Phase, object]:
        """Ask a start how far it is."""
        status = await self._control.status(launched.address, deadline_s=2.0)
        phase = PHASES.get(str(status.get("phase")), "starting")
        return phase, [status.get(key) for key in ("phase", "seq", "decision_offset")]

    async def close(self) -> None:
        """End the child; the owners it made live on."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _order(self, order: Order) -> Placed:
        try:
            placed = await asyncio.wait_for(self._ask(order), LAUNCH_DEADLINE_S + 10)
        except (OSError, TimeoutError, msgspec.MsgspecError, asyncio.IncompleteReadError) as error:
            await self.close()  # another child may find another Ray
            raise FailedDependency(f"Ray did not answer to {order}: {error!r}") from error
        if placed.problem:
            await self.close()
            raise FailedDependency(f"{placed.name}: {placed.problem}")
        return placed

    async def _ask(self, order: Order) -> Placed:
        child = self._child
        if child is None or child.returncode is not None:
            log = (self._settings.folder / "logs" / "placement.log").open("ab")
            with log:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "cluster.placement"),
                    *(str(self._settings_file), str(os.getpid())),
                    env=ray_environment(self._settings),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                )
            self._child = child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        await child.stdin.drain()
        while True:
            line = await child.stdout.readuntil(b"\n")
            if line.startswith(b"{"):  # Ray prints to standard output now and then
                return msgspec.json.decode(line, type=Placed)


PHASES: Final[dict[str, Phase]] = {"waiting": "standby", "live": "live"}
"""An owner's phase -> what it means to the supervisor; every other is a start under way."""


def living_owners(run_folder: Path) -> list[Launched]:
    """Return the owners that still run, whoever started them, and clear away the others' cards.

    The older start of a shard comes first.
    """
    living = []
    for card in owner_cards(run_folder):
        if lives(card.process):
            pid = card.process.pid
            living.append(Launched(start=card.start, pid=pid, address=card.address))
        else:
            owner_card_file(run_folder, card.start.name).unlink(missing_ok=True)
    return sorted(living, key=lambda launched: launched.start.number)
