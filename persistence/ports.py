"""The ports: what the rest asks of a log, a table store, a series store, a cache and blobs.

A backend holds no pricing logic. Every call has a deadline of its own; *in doubt* is an outcome of
its own. One contract test a port runs against every backend.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from msgspec import Struct

from engine.errors import RejectedInput, SettingsRefused

RECORD_BYTES_MAX = 4_000_000
"""Largest value of a record. The broker's ``message.max.bytes`` must be a little more."""


class Record(Struct, frozen=True, gc=False):
    """One record of a log. ``appended_ms`` is the log's own time (LogAppendTime).

    It holds numbers, bytes and text only, so the collector need not look at thousands of them.
    """

    offset: int
    appended_ms: int
    key: bytes | None
    value: bytes
    content_type: str = "application/json"


class Appended(Struct, frozen=True):
    """Where and when a record was acknowledged."""

    offset: int
    appended_ms: int


class Appender(Protocol):
    """One writing session on a log: records get there in order or not at all.

    After an ``AppendInDoubt`` it is dead: abandon it, never flush it, and open another.
    """

    async def append(
        self, value: bytes, *, key: bytes | None = None, content_type: str = ""
    ) -> Appended:
        """Append and wait for the acknowledgement.

        Raises:
            AppendInDoubt: the deadline passed, or the connection broke, after sending.
            FailedDependency: it certainly was not appended; the same appender may go on.
            RejectedInput: the value is over ``RECORD_BYTES_MAX``.
        """
        ...

    async def append_many(
        self, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> Sequence[Appended]:
        """Append (key, value, content type) in order. In doubt as a whole."""
        ...

    def abandon(self) -> None:
        """Drop it without flushing; what is in flight may still arrive late."""
        ...

    async def close(self) -> None:
        """Finish in order, bounded in time."""
        ...


class Log(Protocol):
    """One partition of one topic: an append-only list of records with contiguous-enough offsets."""

    async def appender(self) -> Appender:
        """Open a new writing session, independent of every other."""
        ...

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        """Return up to ``limit`` records with offset > ``after``, waiting ``wait_ms`` for one.

        Offsets grow, but Kafka may leave holes. ``after=-1`` reads from the very first record;
        who wants only what is still kept reads after ``await start() - 1``. One reader at a time:
        a log that is read at two places is opened twice.

        Raises:
            LogTruncated: records right after ``after`` existed and are gone.
            LogRegressed: the log ends before ``after + 1``: acknowledged records were lost.
            FailedDependency: the log did not answer in time.
        """
        ...

    async def start(self) -> int:
        """Return the lowest offset still kept (the end when empty)."""
        ...

    async def end(self) -> int:
        """Return the offset that the next record will get."""
        ...

    async def close(self) -> None: ...


class Logs(Protocol):
    """All topics of one generation. ``open`` is cheap; what it returns is owned by the caller."""

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        """Create the topics that do not exist, with that many partitions; check those that do.

        Raises:
            SettingsRefused: a topic exists with other partitions or a shorter retention.
        """
        ...

    async def open(self, topic: str, partition: int) -> Log: ...

    async def partitions(self, topic: str) -> int: ...

    async def close(self) -> None: ...


def refuse_oversize(value: bytes) -> None:
    """Raise ``RejectedInput`` when a record's value is larger than any log takes."""
    if len(value) > RECORD_BYTES_MAX:
        problem = f"a record of {len(value)} bytes is over the limit of {RECORD_BYTES_MAX}"
        raise RejectedInput("", problem, "send it in smaller parts")


def missing_topic(topic: str) -> SettingsRefused:
    """Return the error for a topic that does not exist."""
    return SettingsRefused(
        f"topic {topic} does not exist: `repricer up` creates it, in the folder or on the "
        "broker that the settings name"
    )


def refuse_missing_partition(topic: str, partition: int, partitions: int) -> None:
    """Raise ``SettingsRefused`` when the topic has no such partition."""
    if not 0 <= partition < partitions:
        raise SettingsRefused(
            f"topic {topic} has {partitions} partitions, there is no partition {partition}"
        )


def refuse_other_topic(
    topic: str, partitions: int, wanted: int, retention_ms: int, wanted_ms: int
) -> None:
    """Raise ``SettingsRefused`` when a topic that exists is not the one that was wanted.

    A ``retention_ms`` of -1 keeps for ever.
    """
    if partitions != wanted:
        raise SettingsRefused(f"topic {topic} has {partitions} partitions, wanted {wanted}")
    if retention_ms >= 0 and not 0 <= wanted_ms <= retention_ms:
        raise SettingsRefused(
            f"topic {topic} keeps records for {retention_ms} ms, wanted at least {wanted_ms} ms"
        )


DELTAS = "repricer.deltas.v1"
COMMANDS = "repricer.commands.v1"
DECISIONS = "repricer.decisions.v1"
DEAD_LETTERS = "repricer.dead-letters.v1"
WATCH = "repricer.watch.v1"


class TableStore(Protocol):
    """A relational store for what people query. SQL differs little enough to be shared.

    Statements use ``$1`` placeholders in both backends. ``transact`` runs all or nothing.
    """

    async def migrate(self) -> Sequence[str]:
        """Apply what is missing of the forward-only, checksummed migrations; return their names.

        Raises:
            SettingsRefused: an applied migration was changed since.
        """
        ...

    async def fetch(self, sql: str, *args: Any) -> list[Mapping[str, Any]]: ...

    async def transact(self, statements: Sequence["Statement"]) -> list[int]:
        """Run the statements in one transaction; return the rows each one touched.

        A statement with ``expect`` that touches another number of rows rolls everything back.

        Raises:
            CursorFenced: an expectation failed.
            WriteInDoubt: the commit was sent and not acknowledged: read back before going on.
            RejectedInput: the store refuses these rows as they are; trying again is no use.
            FailedDependency: certainly not committed.
        """
        ...

    async def close(self) -> None: ...


class Statement(Struct, frozen=True):
    """One SQL statement of a transaction; ``many`` runs it once for each tuple of arguments.

    With ``into`` and ``columns`` instead of ``sql``, ``many`` are new rows of that table, put there
    the fastest way the store has.
    """

    sql: str = ""
    args: Sequence[Any] = ()
    many: Sequence[Sequence[Any]] | None = None
    expect: int | None = None
    into: str = ""
    columns: Sequence[str] = ()


class SeriesStore(Protocol):
    """Points in time. Idempotent append: the same key again changes nothing or repeats it."""

    async def migrate(self) -> Sequence[str]: ...

    async def append(self, table: str, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> int:
        """Append rows given as columns (``ts`` in unix ms); return how many, once they can be read.

        Raises:
            FailedDependency: try the very same rows again.
            RejectedInput: the store refuses these rows as they are; never silently dropped.
        """
        ...

    async def settle(self, table: str) -> None:
        """Return when every row of a table that was ever acknowledged can be read.

        Raises:
            FailedDependency: not yet: ask again.
        """
        ...

    async def fetch(self, sql: str) -> list[Mapping[str, Any]]:
        """Return the rows of a query; ``ts`` comes back in unix ms."""
        ...

    async def close(self) -> None: ...


class Cache(Protocol):
    """Short-lived values; never the record, never on the price path."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None: ...

    async def put_versioned(self, entries: Sequence[tuple[str, int, bytes]], *, ttl_ms: int) -> int:
        """Put (key, version, value), never an older version over a newer; return how many won."""
        ...

    async def get_versioned(self, key: str) -> tuple[int, bytes] | None: ...

    async def add(self, key: str, amount: int, *, ttl_ms: int) -> int:
        """Add atomically and return the sum; the TTL starts with the first."""
        ...

    async def close(self) -> None: ...


class Blob(Struct, frozen=True):
    """What a listing tells of one blob."""

    key: str
    size: int
    checksum: str  # sha256 of its bytes, in hexadecimal


class Blobs(Protocol):
    """Whole values under names like ``models/acme/m1/artefact``: model artefacts and exports.

    A blob is there whole or not at all, and its checksum travels with it: bytes that are not what
    was put are never handed out. Keys are segments of letters, digits and ``._-`` joined by ``/``.
    """

    async def put(self, key: str, value: bytes, *, new: bool = False) -> str:
        """Store a value, acknowledged and durable; return its checksum.

        Args:
            new: refuse to replace what is there.

        Raises:
            RejectedInput: the key is none, or ``new`` and it is taken.
            FailedDependency: try again; what was there before is there still, or the new value.
        """
        ...

    async def get(self, key: str) -> bytes | None:
        """Return a value, ``None`` where there is none.

        Raises:
            CorruptBlob: what is there fails its checksum.
            FailedDependency: the store did not answer in time.
        """
        ...

    async def list(self, prefix: str) -> Sequence[Blob]:
        """Return every blob below ``prefix``, which is a folder's name, by key.

        Raises:
            CorruptBlob: a blob there has lost its head.
        """
        ...

    async def delete(self, key: str) -> bool:
        """Delete a blob; return whether there was one."""
        ...

    async def close(self) -> None: ...
