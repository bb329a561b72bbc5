"""Checkpoints sent to the table store, and fetched back at a start.

The owner writes checkpoints to its local folder and never waits for a store. Shipping copies the
newest chain beside: first the parts, in rows of at most a megabyte, then, by compare-and-set on
the epoch, the manifest that names them. A manifest therefore never names what is not there, and a
replaced owner's never takes the place of its successor's.

At a start the shipped chain is fetched where it is newer than what is here, if that takes no time,
and where nothing here can be used, for as long as it takes. A store that is down is no reason not
to start: the log holds the rest.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from actors.patience import Patience
from engine.errors import CorruptCheckpoint, CursorFenced, FailedDependency, StaleEpoch
from persistence.checkpoints import (
    DAY_MS,
    Chain,
    CheckpointFiles,
    decode_increment,
    is_checkpoint,
    place_of,
)
from persistence.decision_records import LogPosition
from persistence.ports import SeriesStore, Statement, TableStore

LOGGER = logging.getLogger("repricer.shipping")

PART_BYTES_MAX = 1_000_000
PARTS_PER_WRITE = 4
"""Parts of one transaction, so that each has a fair chance within its deadline."""


class ShippedFile(Struct, frozen=True):
    """One file of a chain, as the manifest names it."""

    name: str
    size: int
    parts: int
    digest: str  # blake2b-128 of the whole file


class Shipping:
    """One shard's checkpoints, between its local folder and the stores."""

    def __init__(
        self,
        files: CheckpointFiles,
        tables: TableStore,
        *,
        shard: int,
        generation: int,
        series: SeriesStore | None = None,
        pinned_days: int = 0,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._files = files
        self._tables = tables
        self._series = series
        self._shard = shard
        self._generation = generation
        self._pinned_days = pinned_days
        self._wall_ms = wall_ms
        self._migrated = False
        self._series_migrated = False
        self._looked_at: tuple[list[str], Chain | None] = ([], None)

    async def ship(self) -> str | None:
        """Ship the newest chain that verifies; return its name, ``None`` if that was done before.

        ``None`` also where a file of it went while it was read: a merged base took the chain's
        place on the disk, which happens as often as there is much to ship, and the next call ships
        that one. Call it again after a failure, too: parts that arrived are not sent again.

        Raises:
            StaleEpoch: a checkpoint of a higher epoch was shipped; this owner was replaced.
            FailedDependency: the store did not do it.
        """
        chain = await self._newest()
        if chain is None:
            return None
        await self._migrate()
        manifest = await self._manifest()
        position = chain.position
        if manifest is not None:
            if manifest["epoch"] > position.epoch:
                raise StaleEpoch(self._shard, position.epoch, manifest["epoch"])
            if _names(manifest) == list(chain.names):
                return None
            if _place(manifest) > (position.epoch, position.seq):
                return None
        try:
            there = _there(manifest, position)
            shipped = [
                there.get(name) or await self._ship_file(name, position.epoch)
                for name in chain.names
            ]
        except FileNotFoundError:
            LOGGER.debug("shard %d: checkpoint %s gave way to another", self._shard, chain.name)
            return None
        except OSError as error:
            raise FailedDependency(f"checkpoint {chain.name}: {error}") from error
        await self._publish(chain, shipped, manifest)
        await self._note(chain, shipped)
        return chain.name

    async def fetch(self, deadline_ms: int | None = None) -> str | None:
        """Fetch the shipped chain, whatever is here.

        Args:
            deadline_ms: for the store to say what was shipped. The files, which may be large, take
                as long as it goes on to give them.

        Returns the newest file's name, or ``None`` when nothing was shipped.

        Raises:
            CorruptCheckpoint: what was shipped fails its digests; the local ones stand.
            FailedDependency: the store did not answer.
            TimeoutError: not within the deadline.
        """
        async with asyncio.timeout(None if deadline_ms is None else deadline_ms / 1000):
            manifest = await self._known()
        return None if manifest is None else await self._receive(manifest)

    async def _receive(self, manifest: dict[str, Any]) -> str:
        files = _files(manifest)
        contents = [(file.name, await self._content(file)) for file in files]
        for name, content in contents:  # base first: a crash in between leaves a shorter chain
            await self._files.receive(name, content)
        return files[-1].name

    async def fetch_pinned(self) -> list[str]:
        """Fetch the pinned chains that are not here; return the newest file's name of each.

        Raises:
            CorruptCheckpoint: one fails its digests.
            FailedDependency: the store did not answer.
        """
        await self._migrate()
        here, fetched = set(await self._files.names()), []
        for pin in await self._pins():
            files = _files(pin)
            missing = [file for file in files if file.name not in here]
            for file in missing:
                await self._files.receive(file.name, await self._content(file))
            if missing:
                fetched.append(files[-1].name)
        return fetched

    async def run(self, every_ms: int) -> None:
        """Ship what is newest, for ever; slows nobody and waits longer while the store is down.

        Raises:
            StaleEpoch: this owner was replaced.
        """
        patience = Patience()
        while True:
            try:
                name = await self.ship()
            except FailedDependency as error:
                LOGGER.warning("shard %d: checkpoint not shipped: %s", self._shard, error)
                await patience.wait()
                continue
            patience.renew()
            if name is not None:
                LOGGER.info("shard %d: checkpoint %s shipped", self._shard, name)
            await asyncio.sleep(every_ms / 1000)

    async def fetch_newer(self, deadline_ms: int) -> str | None:
        """Fetch what is newer than the newest file here, in time or not at all: no start waits.

        Files are compared by their names. To verify a large one takes as long as the start has, and
        whoever restores it does so anyway.
        """
        return await self._if_it_can_be_had(self._fetch_newer(deadline_ms))

    async def fetch_lacking(self, deadline_ms: int) -> str | None:
        """Fetch what was shipped as :meth:`fetch` does: nothing here can be used.

        The other way is a log from its beginning.
        """
        return await self._if_it_can_be_had(self.fetch(deadline_ms))

    async def _fetch_newer(self, deadline_ms: int) -> str | None:
        async with asyncio.timeout(deadline_ms / 1000):
            names = await self._files.names()
            manifest = await self._known() if names else None
            if manifest is None or place_of(names[-1]) >= _place(manifest):
                return None
            return await self._receive(manifest)

    async def _if_it_can_be_had(self, fetching: Awaitable[str | None]) -> str | None:
        try:
            return await fetching
        except (FailedDependency, CorruptCheckpoint, TimeoutError, OSError) as error:
            LOGGER.warning("shard %d: no checkpoint fetched: %r", self._shard, error)
            return None

    async def _known(self) -> dict[str, Any] | None:
        await self._migrate()
        return await self._manifest()

    async def _newest(self) -> Chain | None:
        """Return the newest chain that verifies, without its parts; files are looked at once."""
        names = await self._files.names()
        seen, chain = self._looked_at
        # One that did not verify may do so the next time.
        if names != seen or chain is None or chain.name != names[-1]:
            chain = await anext(self._files.heads(), None)
            self._looked_at = (names, chain)
        return chain

    async def _migrate(self) -> None:
        if not self._migrated:
            await self._tables.migrate()
            self._migrated = True

    async def _manifest(self) -> dict[str, Any] | None:
        rows = await self._tables.fetch(
            "select * from checkpoints where generation = $1 and shard = $2",
            self._generation,
            self._shard,
        )
        return dict(rows[0]) if rows else None

    async def _pins(self) -> list[dict[str, Any]]:
        rows = await self._tables.fetch(
            "select day, files from pinned_checkpoints where generation = $1 and shard = $2"
            " order by day",
            self._generation,
            self._shard,
        )
        return [dict(row) for row in rows]

    async def _ship_file(self, name: str, epoch: int) -> ShippedFile:
        """Send what is missing of one file; parts go by digest, so one that is there is right."""
        content = await self._files.content(name)
        decode_increment(content)
        digest = _digest(content)
        starts = range(0, len(content), PART_BYTES_MAX)
        pieces = [content[start : start + PART_BYTES_MAX] for start in starts]
        rows = await self._tables.fetch(
            "select part from checkpoint_parts where generation = $1 and shard = $2 and file = $3",
            self._generation,
            self._shard,
            digest,
        )
        there = {row["part"] for row in rows}
        missing = [part for part in range(len(pieces)) if part not in there]
        for start in range(0, len(missing), PARTS_PER_WRITE):
            some = [
                (self._generation, self._shard, digest, part, epoch, pieces[part])
                for part in missing[start : start + PARTS_PER_WRITE]
            ]
            sql = (
                "insert into checkpoint_parts (generation, shard, file, part, epoch, content)"
                " values ($1, $2, $3, $4, $5, $6) on conflict do nothing"
            )
            await self._tables.transact([Statement(sql, many=some)])
        return ShippedFile(name, len(content), len(pieces), digest)

    async def _publish(
        self, chain: Chain, shipped: Sequence[ShippedFile], before: dict[str, Any] | None
    ) -> None:
        """Put the manifest in place of the one that was read, and drop the parts nobody names.

        Parts of a higher epoch stay: a successor may be sending them at this moment.
        """
        position = chain.position
        listed = msgspec.json.encode(list(shipped)).decode()
        total = sum(file.size for file in shipped)
        values = (
            position.epoch,
            position.owner.hex(),
            position.log_id.hex(),
            position.offset,
            position.seq,
            listed,
            total,
            self._wall_ms(),
            self._generation,
            self._shard,
        )
        if before is None:
            move = Statement(
                "insert into checkpoints (epoch, owner, log_id, log_offset, seq, files, bytes,"
                " shipped_ms, generation, shard, version)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1) on conflict do nothing",
                values,
                expect=1,
            )
        else:
            move = Statement(
                "update checkpoints set epoch = $1, owner = $2, log_id = $3, log_offset = $4,"
                " seq = $5, files = $6, bytes = $7, shipped_ms = $8, version = version + 1"
                " where generation = $9 and shard = $10 and version = $11 and epoch <= $1",
                (*values, before["version"]),
                expect=1,
            )
        pin, digests = await self._pin(chain, listed)
        digests += [file.digest for file in shipped]
        kept = ", ".join(f"${4 + place}" for place in range(len(digests)))
        drop = Statement(
            "delete from checkpoint_parts where generation = $1 and shard = $2 and epoch <= $3"
            f" and file not in ({kept})",
            (self._generation, self._shard, position.epoch, *digests),
        )
        try:
            await self._tables.transact([move, *pin, drop])
        except CursorFenced as error:
            # Another shipped meanwhile. A higher epoch shows at the next try; so does our own late
            # commit, which then is what is wanted.
            raise FailedDependency(f"manifest of shard {self._shard} changed: {error}") from error

    async def _pin(self, chain: Chain, listed: str) -> tuple[list[Statement], list[str]]:
        """Return what pins the first chain of a day and lets go what is too old, and what to keep.

        Pins change in the manifest's transaction only, so its compare-and-set guards them, too.
        """
        pins = {pin["day"]: pin["files"] for pin in await self._pins()}
        day = chain.header.decided_ms // DAY_MS
        statements = []
        if self._pinned_days > 0 and day not in pins:
            pins[day] = listed
            position = chain.position
            values = (self._generation, self._shard, day, position.epoch, position.seq, listed)
            statements.append(
                Statement(
                    "insert into pinned_checkpoints (generation, shard, day, epoch, seq, files)"
                    " values ($1, $2, $3, $4, $5, $6)",
                    values,
                )
            )
        oldest = max([day, *pins]) - self._pinned_days
        statements.append(
            Statement(
                "delete from pinned_checkpoints where generation = $1 and shard = $2 and day <= $3",
                (self._generation, self._shard, oldest),
            )
        )
        files = [
            file
            for at, each in pins.items()
            if at > oldest
            for file in msgspec.json.decode(each, type=list[ShippedFile])
        ]
        return statements, [file.digest for file in files]

    async def _note(self, chain: Chain, shipped: Sequence[ShippedFile]) -> None:
        """Tell the history; it may be down, and then this one point is missing there."""
        if self._series is None:
            return
        position = chain.position
        try:
            if not self._series_migrated:
                await self._series.migrate()
                self._series_migrated = True
            await self._series.append(
                "checkpoints",
                {
                    "ts": [self._wall_ms()],
                    "generation": [self._generation],
                    "shard": [self._shard],
                    "epoch": [position.epoch],
                    "seq": [position.seq],
                    "log_offset": [position.offset],
                    "digest": [f"{chain.header.digest:016x}"],
                    "files": [len(shipped)],
                    "bytes": [sum(file.size for file in shipped)],
                    "name": [chain.name],
                },
            )
        except FailedDependency:
            return

    async def _content(self, file: ShippedFile) -> bytes:
        """Return a shipped file's bytes, one part at a time, verified."""
        assert is_checkpoint(file.name)
        assert "/" not in file.name
        pieces = []
        for part in range(file.parts):
            rows = await self._tables.fetch(
                "select content from checkpoint_parts"
                " where generation = $1 and shard = $2 and file = $3 and part = $4",
                self._generation,
                self._shard,
                file.digest,
                part,
            )
            if not rows:
                # A newer manifest's writer drops what only the older one named.
                raise FailedDependency(f"checkpoint {file.name}: part {part} is gone; look again")
            pieces.append(bytes(rows[0]["content"]))
        content = b"".join(pieces)
        if len(content) != file.size or _digest(content) != file.digest:
            raise CorruptCheckpoint(f"checkpoint {file.name}: the shipped copy is torn or changed")
        return content


def _files(manifest: dict[str, Any]) -> list[ShippedFile]:
    return msgspec.json.decode(manifest["files"], type=list[ShippedFile])


def _names(manifest: dict[str, Any]) -> list[str]:
    return [file.name for file in _files(manifest)]


def _there(manifest: dict[str, Any] | None, position: LogPosition) -> dict[str, ShippedFile]:
    """Return the files that were shipped of this very log, by name; a name tells a mark of one."""
    if manifest is None or manifest["log_id"] != position.log_id.hex():
        return {}
    return {file.name: file for file in _files(manifest)}


def _place(manifest: dict[str, Any]) -> tuple[int, int]:
    return manifest["epoch"], manifest["seq"]


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
