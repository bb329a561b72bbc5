"""Taking checkpoints while deciding: a slice between two microbatches, then one file.

The rows that changed are copied in slices; one touched after its copy is dirty again and is copied
again. When none is left, the small state is taken at the same mark, and that mark names the
increment. Writing it happens beside deciding. What could not be written is kept and tried again:
the shard has forgotten that those rows were dirty.
"""

import asyncio
from contextlib import suppress

from actors.owned_shard import OwnedShard
from actors.patience import Patience
from engine.errors import CorruptCheckpoint, FailedDependency
from persistence.checkpoints import CheckpointFiles, Increment, stem_of
from persistence.decision_records import LogPosition

APPLIED_MS_LONG = 20_000
"""What took longer to decide takes a successor too long to replay: the next round need not wait.

Not less: a round takes processors for half a second, which under a flood is felt in every p99 that
it falls into (docs/decisions/0100).
"""

HASTY = 10
"""But it waits for one part of so many of the usual interval."""


class Checkpointing:
    """One owner's rounds of checkpoints, one at a time."""

    def __init__(
        self,
        files: CheckpointFiles,
        *,
        shard_number: int,
        generation: int,
        interval_ms: int,
        slice_rows: int,
        begun_ms: int,
    ) -> None:
        self.saved = 0
        self.failures = 0  # attempts to write that failed and were repeated
        self.tip = ""  # name of the file that the next increment adds to
        self._files = files
        self._shard_number = shard_number
        self._generation = generation
        self._interval_ms = interval_ms
        self._slice_rows = slice_rows
        self._next_ms = begun_ms + interval_ms
        self._hasty_ms = begun_ms + interval_ms // HASTY
        self._applied_ms = 0  # of decisions that no round holds yet
        self._parts: list[bytes] = []
        self.copying = False  # a round began whose rows are not all copied
        self._saving: asyncio.Task[str] | None = None
        self._waiting: list[asyncio.Future[str]] = []  # asked during or before the present round
        self._asked: list[asyncio.Future[str]] = []  # asked after its mark: they need the next

    def ask(self) -> asyncio.Future[str]:
        """Ask for a checkpoint of what is recorded by now; the future gives its name."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        return answer

    def note(self, applied_ms: int) -> None:
        """Note how long deciding one more microbatch took."""
        self._applied_ms += applied_ms

    def hasten(self) -> None:
        """Let the next round begin at once: what the newest checkpoint leaves to replay is long."""
        self._next_ms = 0

    def advance(self, shard: OwnedShard, position: LogPosition, now_ms: int) -> None:
        """Copy the next slice, if a round is due; call it at a mark, with nothing pending."""
        if self._saving is not None:
            return
        if not self.copying:
            much = self._applied_ms >= APPLIED_MS_LONG and now_ms >= self._hasty_ms
            if now_ms < self._next_ms and not much and not self._asked:
                return
            self.copying = True
            self._applied_ms = 0
            self._waiting, self._asked = self._asked, []
        part = shard.checkpoint_slice(self._slice_rows)
        if part is not None:
            self._parts.append(part)
            return
        self._parts.append(shard.checkpoint_close())
        increment = Increment(
            shard=self._shard_number,
            generation=self._generation,
            position=position,
            last_command=shard.last_command,
            last_delta=shard.last_delta,
            decided_ms=shard.decided_ms,
            digest=shard.digest,
            replay_domain=shard.domain,
            parent=stem_of(self.tip) if self.tip else "",
            parts=tuple(self._parts),
        )
        self._parts = []
        self.copying = False
        self._next_ms = now_ms + self._interval_ms
        self._hasty_ms = now_ms + self._interval_ms // HASTY
        self._saving = asyncio.create_task(self._save(increment))

    def finished(self, shard: OwnedShard) -> bool:
        """Whether a file was written since the last call.

        When the file that it adds to was lost, the next round writes a base.

        Raises:
            StaleEpoch: a later owner has written one already.
        """
        if self._saving is None or not self._saving.done():
            return False
        saving, self._saving = self._saving, None
        try:
            self.tip = saving.result()
        except CorruptCheckpoint:
            self.failures += 1
            self.tip = ""
            shard.checkpoint_restart()
            self._asked, self._waiting = self._waiting + self._asked, []
            self._next_ms = 0
            return False
        self.saved += 1
        for answer in self._waiting:
            if not answer.done():
                answer.set_result(self.tip)
        self._waiting = []
        return True

    async def close(self) -> None:
        """Stop writing; whoever waits for a checkpoint gets an error."""
        if self._saving is not None:
            self._saving.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._saving
        for answer in (*self._waiting, *self._asked):
            if not answer.done():
                answer.set_exception(FailedDependency("the owner stopped"))

    async def _save(self, increment: Increment) -> str:
        patience = Patience(first_ms=100, longest_ms=10_000)
        while True:
            try:
                return await self._files.save(increment)
            except OSError:
                self.failures += 1
            await patience.wait()
