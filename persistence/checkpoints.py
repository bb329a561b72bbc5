"""Checkpoint files: what a shard knew at a mark, in a local folder.

A checkpoint is a chain: a base and the increments after it, each naming its parent. A file holds a
header (the mark it stands at, and the digest of every part) and the parts, opaque here, that the
shard gave. It is written whole or not at all, yet a disk may still lose or tear what it
acknowledged: :meth:`CheckpointFiles.candidates` therefore verifies every byte of a chain and goes
on to the next older one.

Whether the mark still counts is the decision log's to say: :func:`stands_in_log`.
"""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Protocol, TypeVar

import msgspec
from msgspec import Struct

from engine.errors import (
    CorruptCheckpoint,
    CorruptRecord,
    FailedDependency,
    IncompatibleCheckpoint,
    LogRegressed,
    StaleEpoch,
)
from persistence.decision_records import DecisionRecord, LogPosition, decode
from persistence.ports import Log

LOGGER = logging.getLogger("repricer.checkpoints")

MAGIC = b"RPCK"
FORMAT_VERSION = 1
DIGEST_BYTES = 16
TOGETHER_BYTES_MIN = 1 << 24
"""Less than this is hashed before threads have begun."""

HASHERS_MAX = 8

SUFFIX = ".checkpoint"
STANDS_WAIT_MS = 2_000
DAY_MS = 86_400_000
LOCK_DEADLINE_S = 30.0
"""How long the folder's lock is waited for: another writes a file meanwhile, or hangs doing it."""

LOCK_AGAIN_S = 0.02
CHAIN_MAX = 10_000
"""Longest chain that is followed; a longer one is a loop or a base that was never merged."""


PartBytes = bytes | memoryview
"""A part. A view of its file where it was read: a base is as large as its shard."""


class Increment(Struct, frozen=True, kw_only=True):
    """One checkpoint file's content: the parts that changed since its parent, and their mark."""

    shard: int
    generation: int
    position: LogPosition  # of the decision after which the parts were closed
    last_command: int
    last_delta: int
    decided_ms: int
    digest: int  # the shard's, at the mark
    replay_domain: str
    parent: str  # stem of the mark that this one adds to; "" for a base
    parts: tuple[PartBytes, ...]


class Header(Struct, frozen=True, kw_only=True):
    """What stands before the parts in a file, and what a chain tells of its newest file."""

    shard: int
    generation: int
    position: LogPosition
    last_command: int
    last_delta: int
    decided_ms: int
    digest: int
    replay_domain: str
    parent: str
    sizes: tuple[int, ...]  # of the parts, as ``digests``; of no part where a chain tells it
    digests: tuple[bytes, ...]


class Chain(Struct, frozen=True, kw_only=True):
    """A verified chain: all parts, base first, and the newest file's header but for its parts."""

    name: str  # of the newest file
    names: tuple[str, ...]  # base first
    header: Header
    parts: tuple[PartBytes, ...]

    @property
    def position(self) -> LogPosition:
        """Return the mark at which it stands."""
        return self.header.position


Read = Callable[[str], Awaitable[Increment]]
Counts = Callable[[str, Header], Awaitable[bool]]
Found = TypeVar("Found")


class Folder(Protocol):
    """Where files lie. Its own deadline and errors are the file system's: ``OSError``."""

    async def names(self) -> list[str]: ...

    async def read(self, name: str) -> bytes: ...

    async def write(
        self, name: str, pieces: Sequence[PartBytes], admit: Callable[[Sequence[str]], None]
    ) -> None:
        """Write a file whole or not at all, durably.

        ``admit`` is called with the names that exist, while nobody else writes; what it raises
        prevents the writing.
        """
        ...

    async def remove(self, name: str) -> None: ...


class LocalFolder:
    """A directory of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def names(self) -> list[str]:
        return await asyncio.to_thread(self._names)

    async def read(self, name: str) -> bytes:
        return await asyncio.to_thread((self._path / name).read_bytes)

    async def write(
        self, name: str, pieces: Sequence[PartBytes], admit: Callable[[Sequence[str]], None]
    ) -> None:
        await asyncio.to_thread(self._write, name, pieces, admit)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread((self._path / name).unlink, missing_ok=True)

    def _names(self) -> list[str]:
        if not self._path.is_dir():
            return []
        return sorted(entry.name for entry in self._path.iterdir())

    def _write(
        self, name: str, pieces: Sequence[PartBytes], admit: Callable[[Sequence[str]], None]
    ) -> None:
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._path / ".lock", "wb") as lock:
            self._take(lock)
            admit(self._names())
            unfinished = self._path / (name + ".unfinished")
            with open(unfinished, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path / name)
            directory = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _take(self, lock: IO[bytes]) -> None:
        """Take the lock, or give up: a thread that waits for ever outlives its whole process.

        Raises:
            TimeoutError: another held it all the time.
        """
        until = time.monotonic() + LOCK_DEADLINE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(
                        f"checkpoints: another process has held {lock.name} for {LOCK_DEADLINE_S} s"
                    ) from None
            time.sleep(LOCK_AGAIN_S)


class CheckpointFiles:
    """The checkpoints of one shard.

    Args:
        check_part: raises ``IncompatibleCheckpoint`` for a part that this version does not read, so
            that a chain of another version is passed over before anybody restores from it.
    """

    def __init__(
        self, folder: Path | Folder, check_part: Callable[[PartBytes], None] | None = None
    ) -> None:
        self._folder: Folder = LocalFolder(folder) if isinstance(folder, Path) else folder
        self._check_part = check_part
        self.incompatible: dict[str, IncompatibleCheckpoint] = {}  # by name, of those read so far

    async def save(self, increment: Increment) -> str:
        """Write one file and return its name. The same increment again is the same file.

        Raises:
            StaleEpoch: a file of a higher epoch exists: its writer replaced this one.
            CorruptCheckpoint: the parent is gone, so the chain must begin with a new base.
            OSError: it was not written; the same increment may be saved again.
        """
        name = name_of(increment)
        position = increment.position

        def admit(names: Sequence[str]) -> None:
            highest = max((epoch_of(name) for name in names if is_checkpoint(name)), default=0)
            if highest > position.epoch:
                raise StaleEpoch(increment.shard, position.epoch, highest)
            if increment.parent and not any(stem_of(each) == increment.parent for each in names):
                raise CorruptCheckpoint(f"checkpoint {name}: its parent {increment.parent} is gone")

        await self._folder.write(name, encode_increment(increment), admit)
        # What does not verify now would break the chain of every increment after it.
        try:
            decode_increment(await self._folder.read(name))
        except CorruptCheckpoint as error:
            raise OSError(f"checkpoint {name} was written and does not verify: {error}") from error
        return name

    async def names(self) -> list[str]:
        """Return the names of all checkpoint files, oldest first; they are not verified."""
        return sorted(name for name in await self._folder.names() if is_checkpoint(name))

    async def content(self, name: str) -> bytes:
        """Return a file's bytes, for shipping."""
        return await self._folder.read(name)

    async def receive(self, name: str, content: bytes) -> None:
        """Write a file that was shipped here.

        Raises:
            CorruptCheckpoint: it is torn, not what its name says, or of another version.
        """
        increment = self._decoded(name, content)
        if name_of(increment) != name:
            raise CorruptCheckpoint(f"checkpoint {name}: its header says {name_of(increment)}")
        await self._folder.write(name, [content], lambda names: None)

    async def candidates(self) -> AsyncIterator[Chain]:
        """Yield the chains that verify, newest first."""
        async for chain in self._chains(await self.names(), self._read):
            yield chain

    async def heads(self) -> AsyncIterator[Chain]:
        """Yield the chains that verify, newest first, without their parts.

        A file is read once, in however many chains it stands, and let go of at once: a chain of an
        hour may be many times as large as its shard.
        """
        known: dict[str, Increment] = {}

        async def read(name: str) -> Increment:
            if name not in known:
                known[name] = msgspec.structs.replace(await self._read(name), parts=())
            return known[name]

        async for chain in self._chains(await self.names(), read):
            yield chain

    async def newest(self, counts: Counts) -> Chain | None:
        """Return the newest chain that verifies and whose mark ``counts``, given name and header.

        The mark is judged when one file has been read, and its chain only if it counts. What
        ``counts`` raises is passed on; files are listed anew at the next call.
        """
        names = await self.names()
        for name in reversed(names):
            file = await self._unless_broken(name, self._read(name))
            if file is None or not await counts(name, header_of(file)):
                continue
            read = partial(self._read_unless_known, {name: file})
            chain = await self._unless_broken(name, self._chain(name, names, read))
            if chain is not None:
                return chain
        return None

    async def whole(self, head: Chain) -> Chain:
        """Return a chain with its parts.

        Raises:
            CorruptCheckpoint: it does not verify any more.
            OSError: a file cannot be read.
        """
        return await self._chain(head.name, await self.names(), self._read)

    async def _chains(self, names: Sequence[str], read: Read) -> AsyncIterator[Chain]:
        for name in reversed(names):
            chain = await self._unless_broken(name, self._chain(name, names, read))
            if chain is not None:
                yield chain

    async def _unless_broken(self, name: str, reading: Awaitable[Found]) -> Found | None:
        """Return what is read, or nothing: then an older one has to do, and a longer replay."""
        try:
            return await reading
        except IncompatibleCheckpoint as error:
            if name not in self.incompatible:
                LOGGER.error("%s", error)
            self.incompatible[name] = error
        except (CorruptCheckpoint, OSError):
            pass  # torn or lost
        return None

    async def load(self) -> tuple[tuple[PartBytes, ...], LogPosition] | None:
        """Return the parts and the mark of the newest chain that verifies."""
        async for chain in self.candidates():
            return chain.parts, chain.position
        return None

    async def prune(self, keep: int, pinned_days: int = 0) -> list[str]:
        """Remove what neither the ``keep`` newest chains nor the pinned ones need; return it.

        Pinned is the oldest base of each of the last ``pinned_days`` days of decided time (of a day
        without a base, its oldest chain): where replay can begin after retention has cut the log's
        head.
        """
        assert keep >= 1
        needed: set[str] = set()
        pins: dict[int, tuple[bool, tuple[str, ...]]] = {}  # day -> is a base, names
        kept = 0
        async for chain in self.heads():
            if kept < keep:
                needed.update(chain.names)
                kept += 1
            day, is_base = chain.header.decided_ms // DAY_MS, not chain.header.parent
            if is_base or day not in pins or not pins[day][0]:
                pins[day] = (is_base, chain.names)
        for day, (_, names) in pins.items():
            if day > max(pins) - pinned_days:
                needed.update(names)
        removed = []
        for name in await self.names():
            # What is newer than every kept chain is being written, or is evidence: leave it.
            if name not in needed and needed and name < max(needed):
                await self._folder.remove(name)
                removed.append(name)
        return removed

    async def _chain(self, name: str, names: Sequence[str], read: Read) -> Chain:
        # A mark's base, merged later, sorts after its increment and so stands in for it.
        files = {stem_of(each): each for each in names}
        increments: list[Increment] = []
        path: list[str] = []
        step = name
        while True:
            if step in path or len(path) >= CHAIN_MAX:
                raise CorruptCheckpoint(f"checkpoint {name}: its chain is a loop at {step}")
            increment = await read(step)
            path.append(step)
            increments.append(increment)
            if not increment.parent:
                break
            if increment.parent not in files:
                raise CorruptCheckpoint(f"checkpoint {name}: {increment.parent} is missing")
            step = files[increment.parent]
        newest = increments[0]
        return Chain(
            name=name,
            names=tuple(reversed(path)),
            header=header_of(newest),
            parts=tuple(part for one in reversed(increments) for part in one.parts),
        )

    async def _read_unless_known(self, known: Mapping[str, Increment], name: str) -> Increment:
        return known[name] if name in known else await self._read(name)

    async def _read(self, name: str) -> Increment:
        increment = self._decoded(name, await self._folder.read(name))
        if name_of(increment) != name:
            raise CorruptCheckpoint(f"checkpoint {name}: it holds {name_of(increment)}")
        return increment

    def _decoded(self, name: str, content: bytes) -> Increment:
        """Return what a file holds, if this version reads all of it."""
        try:
            increment = decode_increment(content)
            for part in increment.parts:
                if self._check_part is not None:
                    self._check_part(part)
        except IncompatibleCheckpoint as error:
            raise error.of(name) from None
        return increment


async def stands_in_log(
    position: LogPosition, log: Log, *, shard: int, generation: int, digest: int | None = None
) -> bool:
    """Return whether the decision that a checkpoint names is in the log, as far as that shows.

    ``digest`` is the shard's at the mark, if the checkpoint says it: the record's own must be it.

    A record that retention removed cannot be checked and is believed: what follows it, and must
    follow without a gap, is checked by whoever reads on.

    Raises:
        LogRegressed: the log ends before the decision: it lost acknowledged data.
        FailedDependency: it did not give the record in time, which says nothing about it.
    """
    if position.offset >= await log.end():
        raise LogRegressed(
            f"a checkpoint names decision offset {position.offset}, the log ends before it"
        )
    if position.offset < await log.start():
        return True
    # The record is there, so nobody waits in vain; asked to answer at once, a broker says nothing.
    records = await log.read(position.offset - 1, limit=1, wait_ms=STANDS_WAIT_MS)
    if not records:
        raise FailedDependency(f"the log did not give decision offset {position.offset} in time")
    if records[0].offset != position.offset:
        return False
    try:
        record = decode(records[0].value)
    except CorruptRecord:
        return False
    stamp = record.stamp
    if not isinstance(record, DecisionRecord) or record.decided.seq != position.seq:
        return False
    if (stamp.shard, stamp.generation) != (shard, generation):
        return False
    if digest is not None and record.decided.digest != digest:
        return False
    return (stamp.log_id, stamp.epoch, stamp.owner) == (
        position.log_id,
        position.epoch,
        position.owner,
    )


def name_of(increment: Increment) -> str:
    """Return the file's name; names sort by epoch, seq, offset, and a base after an increment."""
    position = increment.position
    kind = "added" if increment.parent else "base"
    return f"{position.epoch:010d}-{position.seq:014d}-{position.offset:014d}-{kind}{SUFFIX}"


def stem_of(name: str) -> str:
    """Return the part of a file's name that says at which mark it stands."""
    return name.rsplit("-", 1)[0]


def is_checkpoint(name: str) -> bool:
    """Return whether a file's name is one of ours."""
    return name.endswith(SUFFIX) and name[:10].isdigit()


def epoch_of(name: str) -> int:
    """Return the epoch in a file's name."""
    return int(name[:10])


def place_of(name: str) -> tuple[int, int]:
    """Return epoch and seq in a file's name."""
    return epoch_of(name), int(name[11:25])


def header_of(increment: Increment) -> Header:
    """Return an increment's header with nothing of its parts: to hash them is for who writes."""
    return Header(
        shard=increment.shard,
        generation=increment.generation,
        position=increment.position,
        last_command=increment.last_command,
        last_delta=increment.last_delta,
        decided_ms=increment.decided_ms,
        digest=increment.digest,
        replay_domain=increment.replay_domain,
        parent=increment.parent,
        sizes=(),
        digests=(),
    )


def encode_increment(increment: Increment) -> list[PartBytes]:
    """Return the file's bytes in pieces: magic, version, header and its digest, then the parts."""
    described = msgspec.structs.replace(
        header_of(increment),
        sizes=tuple(len(part) for part in increment.parts),
        digests=_digests(increment.parts),
    )
    header = msgspec.msgpack.encode(described)
    lead = MAGIC + FORMAT_VERSION.to_bytes(2, "little") + len(header).to_bytes(4, "little")
    return [lead, header, _digest(lead + header), *increment.parts]


def decode_increment(content: bytes) -> Increment:
    """Return what a file holds, every byte verified.

    Raises:
        IncompatibleCheckpoint: it is of a version of the file that is not read.
        CorruptCheckpoint: it is torn, or a digest is wrong.
    """
    lead_bytes = len(MAGIC) + 6
    if len(content) < lead_bytes or content[: len(MAGIC)] != MAGIC:
        raise CorruptCheckpoint("checkpoint: it does not begin as one")
    version = int.from_bytes(content[4:6], "little")
    if version != FORMAT_VERSION:
        raise IncompatibleCheckpoint(
            found=f"file format {version}", wanted=f"file format {FORMAT_VERSION}"
        )
    header_end = lead_bytes + int.from_bytes(content[6:10], "little")
    parts_begin = header_end + DIGEST_BYTES
    if content[header_end:parts_begin] != _digest(content[:header_end]):
        raise CorruptCheckpoint("checkpoint: the header is torn or changed")
    try:
        header = msgspec.msgpack.decode(content[lead_bytes:header_end], type=Header)
    except msgspec.MsgspecError as error:
        # Its digest is right, so these are the fields that its writer meant.
        raise IncompatibleCheckpoint(
            found=f"file format {version} with another header ({error})",
            wanted=f"file format {FORMAT_VERSION}",
        ) from error
    return Increment(
        shard=header.shard,
        generation=header.generation,
        position=header.position,
        last_command=header.last_command,
        last_delta=header.last_delta,
        decided_ms=header.decided_ms,
        digest=header.digest,
        replay_domain=header.replay_domain,
        parent=header.parent,
        parts=_verified_parts(header, content, parts_begin),
    )


def merge_base(
    files: CheckpointFiles,
    merge: Callable[[Sequence[PartBytes]], Iterable[bytes]],
    *,
    keep: int = 2,
    pinned_days: int = 0,
) -> str | None:
    """Merge the newest chain's files into one base; call it in a process of its own.

    Never from a shard's memory: copying a million rows at once takes seconds. The base stands at
    the mark of the increment that it stands in for. Returns its name, or ``None`` when
    the newest chain is a base already.
    """
    return asyncio.run(_merge_base(files, merge, keep, pinned_days))


async def _merge_base(
    files: CheckpointFiles,
    merge: Callable[[Sequence[PartBytes]], Iterable[bytes]],
    keep: int,
    pinned_days: int,
) -> str | None:
    async for chain in files.candidates():
        if not chain.header.parent:
            return None
        header = chain.header
        base = Increment(
            shard=header.shard,
            generation=header.generation,
            position=header.position,
            last_command=header.last_command,
            last_delta=header.last_delta,
            decided_ms=header.decided_ms,
            digest=header.digest,
            replay_domain=header.replay_domain,
            parent="",
            parts=tuple(merge(chain.parts)),
        )
        name = name_of(base)
        await files.receive(name, b"".join(encode_increment(base)))
        await files.prune(keep, pinned_days)
        return name
    return None


def _verified_parts(header: Header, content: bytes, begin: int) -> tuple[PartBytes, ...]:
    if len(content) != begin + sum(header.sizes) or len(header.sizes) != len(header.digests):
        raise CorruptCheckpoint("checkpoint: its length is not what the header says")
    begins = tuple(accumulate(header.sizes, initial=begin))
    whole = memoryview(content)
    parts = tuple(whole[at:end] for at, end in pairwise(begins))
    for at, found, digest in zip(begins, _digests(parts), header.digests, strict=False):
        if found != digest:
            raise CorruptCheckpoint(f"checkpoint: the part at byte {at} is torn or changed")
    return parts


def _digests(parts: Sequence[PartBytes]) -> tuple[bytes, ...]:
    """Return the digest of each part, of many bytes on all processors at once."""
    if sum(map(len, parts)) < TOGETHER_BYTES_MIN:
        return tuple(map(_digest, parts))
    threads = min(len(os.sched_getaffinity(0)), HASHERS_MAX)
    with ThreadPoolExecutor(threads) as hashers:  # hashing lets go of the interpreter
        return tuple(hashers.map(_digest, parts))


def _digest(content: PartBytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
