"""Dead letters: every delta that was refused, with the reason and its original bytes.

They are written to a log of their own, for people and programs to look at, repair and send again.
A log has no transactions, so this sink counts by *position*: where in which lane the refused delta
stands. Before it writes, it reads back what stands behind its cursor and leaves that out. An append
in doubt may still arrive late and then stand there twice; so every key is a position, and whoever
counts dead letters counts distinct keys.

The cursor is a small file beside, written after the letters: this follower needs no store at all.
"""

import asyncio
import os
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.sinks.delta_lanes import READ_RECORDS_MAX, READ_TRIES, READ_WAIT_MS, DeltaLanes
from actors.sinks.rows import IDLE_MS, NOT_BEGUN
from engine.decided import Decided
from engine.errors import AppendInDoubt, CursorFenced, FailedDependency, LogTruncated
from engine.microbatch import LANES, VERDICTS, Lane, Refusal
from persistence.checksums import Tally, tally
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import DEAD_LETTERS, Appender, Log, Logs, Record

NAME = "dead_letters"
JSON = "application/json"

ORIGINAL_BYTES_MAX = 262_144
"""Of the original at most this much is kept; the delta log has all of it while it lasts."""

LETTERS_PER_APPEND = 64
BYTES_PER_APPEND = 800_000


class Letter(Struct, frozen=True, kw_only=True):
    """One dead letter, as JSON."""

    generation: int
    shard: int
    seq: int  # of the decision that refused it
    decided_ms: int
    lane: str
    offset: int
    index: int
    verdict: str
    reason: str  # names the field and the fix
    listing: str | None  # hexadecimal, where it is known
    record_key: str | None = None
    content_type: str = ""
    appended_ms: int = 0
    bytes: int = 0  # of the whole original record
    digest: str = ""  # blake2b-128 of the whole original record
    original: str | None = None  # base64; None where another letter of the record holds it
    original_in: str = ""  # that other letter's key
    gone: bool = False  # retention had removed the original before it could be read


class Cursor(Struct, frozen=True):
    """How far in the decision log, and where in the dead letters that was."""

    position: LogPosition | None = None
    letters_end: int = 0  # every letter up to ``position`` stands below
    appended_ms: int = 0


class LettersSummary(Struct, frozen=True):
    """What stands in one partition of the dead letters."""

    letters: Tally  # distinct positions
    records: int  # with what an append in doubt may have doubled
    by_verdict: Mapping[str, int]


class DeadLetters:
    """``actors.follower.Sink`` over a log and a cursor file a shard."""

    name = NAME

    def __init__(
        self,
        logs: Logs,
        deltas: DeltaLanes,
        folder: Path,
        *,
        generation: int,
        verdicts: Collection[str] = VERDICTS,
    ) -> None:
        self._logs = logs
        self._deltas = deltas
        self._folder = folder
        self._generation = generation
        self._verdicts = frozenset(verdicts)
        self._log: dict[int, Log] = {}
        self._appender: dict[int, Appender] = {}
        self._stored: dict[int, Cursor] = {}
        self._taken: dict[int, LogPosition | None] = {}
        self._begun: dict[int, LogPosition | None] = {}
        self._behind: dict[int, dict[bytes, int]] = {}  # letters beyond the cursor: key, seq

    async def position(self, shard: int) -> LogPosition | None:
        """Return where to read on, after reading back what was written beyond it."""
        cursor = await asyncio.to_thread(self._read_cursor, shard)
        self._behind[shard] = await self._keys(shard, cursor.letters_end)
        self._stored[shard] = cursor
        self._taken[shard] = cursor.position
        return cursor.position

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        """Append the letters that ``accepted`` calls for, then move the cursor.

        Raises:
            CursorFenced: another follower moved the cursor.
            FailedDependency: a log did not do it: call again with the same.
        """
        if not accepted:
            return
        if shard not in self._behind:
            await self.position(shard)
        taken = self._taken[shard]
        if expected != taken and expected != self._begun.get(shard, NOT_BEGUN):
            raise CursorFenced(f"dead letters of shard {shard} are at {taken}, not {expected}")
        self._begun[shard] = expected
        wrote = False
        for each in accepted:
            if each.decided is None or (taken is not None and each.offset <= taken.offset):
                continue
            letters = await self._letters(shard, each.decided)
            fresh = [letter for letter in letters if letter[0] not in self._behind[shard]]
            await self._append(shard, each.decided.seq, fresh)
            wrote = wrote or bool(letters)
        last = accepted[-1]
        if wrote or last.appended_ms - self._stored[shard].appended_ms >= IDLE_MS:
            await self._move(shard, last)
        self._taken[shard] = last.position
        del self._begun[shard]

    async def summary(self, shard: int) -> LettersSummary:
        """Read and count every letter of the shard."""
        seen: dict[bytes, Letter] = {}
        records = 0
        async for record in _records(await self._letters_log(shard), 0):
            letter = msgspec.json.decode(record.value, type=Letter)
            if letter.generation == self._generation:
                records += 1
                seen[record.key or b""] = letter
        total = tally_letters(
            self._generation,
            shard,
            [
                (LANES.index(_lane(one)), one.offset, one.index, one.verdict)
                for one in seen.values()
            ],
        )
        return LettersSummary(total, records, Counter(one.verdict for one in seen.values()))

    async def close(self) -> None:
        """Close the logs."""
        for appender in self._appender.values():
            await appender.close()
        for log in self._log.values():
            await log.close()

    async def _letters(self, shard: int, decided: Decided) -> list[tuple[bytes, bytes, str]]:
        """Return a decision's letters as records, in the order of positions."""
        refused = [each for each in decided.exceptions if each.verdict in self._verdicts]
        refused.sort(key=lambda refusal: refusal.position)
        originals = await self._originals(shard, refused)
        letters = []
        first_of: dict[tuple[int, int], bytes] = {}
        for refusal in refused:
            lane, offset, index = (
                refusal.position.lane,
                refusal.position.offset,
                refusal.position.index,
            )
            key = f"{self._generation}:{shard}:{lane}:{offset}:{index}".encode()
            holder = first_of.setdefault((lane, offset), key)
            letter = Letter(
                generation=self._generation,
                shard=shard,
                seq=decided.seq,
                decided_ms=decided.decided_ms,
                lane=LANES[lane],
                offset=offset,
                index=index,
                verdict=refusal.verdict,
                reason=refusal.reason,
                listing=f"{refusal.listing:016x}" if refusal.listing else None,
            )
            letter = _with_original(letter, originals.get((lane, offset)), key, holder)
            letters.append((key, msgspec.json.encode(letter), JSON))
        return letters

    async def _originals(
        self, shard: int, refused: Sequence[Refusal]
    ) -> Mapping[tuple[int, int], Record]:
        """Return the records that hold the refused deltas, one read a lane."""
        found: dict[tuple[int, int], Record] = {}
        for lane in range(len(LANES)):
            offsets = {each.position.offset for each in refused if each.position.lane == lane}
            if not offsets:
                continue
            try:
                records = await self._deltas.read(shard, lane, min(offsets) - 1, max(offsets))
            except LogTruncated:
                continue  # the letter says that its original is gone; the count stays exact
            found |= {(lane, each.offset): each for each in records if each.offset in offsets}
        return found

    async def _append(
        self, shard: int, seq: int, letters: Sequence[tuple[bytes, bytes, str]]
    ) -> None:
        """Append in order; in doubt, look at what is there and leave the rest to the next try."""
        for block in _blocks(letters):
            if shard not in self._appender:
                self._appender[shard] = await (await self._letters_log(shard)).appender()
            try:
                await self._appender[shard].append_many(block)
            except AppendInDoubt as doubt:
                self._appender.pop(shard).abandon()
                del self._behind[shard]  # the next try reads back first
                raise FailedDependency(f"dead letters in doubt: {doubt}") from doubt
            self._behind[shard].update((key, seq) for key, _, _ in block if key is not None)

    async def _move(self, shard: int, last: Accepted) -> None:
        end = await (await self._letters_log(shard)).end()
        # What an earlier run wrote beyond this place must be found again by a later one.
        beyond = {key: seq for key, seq in self._behind[shard].items() if seq > last.position.seq}
        letters_end = self._stored[shard].letters_end if beyond else end
        cursor = Cursor(last.position, letters_end, last.appended_ms)
        await asyncio.to_thread(self._write_cursor, shard, cursor)
        self._stored[shard] = cursor
        self._behind[shard] = beyond

    async def _keys(self, shard: int, begin: int) -> dict[bytes, int]:
        """Return the letters from ``begin`` on: their keys, and the decisions they are of."""
        log = await self._letters_log(shard)
        found: dict[bytes, int] = {}
        async for record in _records(log, begin):
            found[record.key or b""] = msgspec.json.decode(record.value, type=Letter).seq
        return found

    async def _letters_log(self, shard: int) -> Log:
        if shard not in self._log:
            self._log[shard] = await self._logs.open(DEAD_LETTERS, shard)
        return self._log[shard]

    # ----- the cursor's file, on a thread --------------------------------------------------------

    def _path(self, shard: int) -> Path:
        return self._folder / f"{NAME}-g{self._generation}-{shard:03d}.json"

    def _read_cursor(self, shard: int) -> Cursor:
        try:
            return msgspec.json.decode(self._path(shard).read_bytes(), type=Cursor)
        except FileNotFoundError:
            return Cursor()
        except (OSError, msgspec.MsgspecError) as error:
            raise FailedDependency(f"dead letters: cursor {self._path(shard)}: {error}") from error

    def _write_cursor(self, shard: int, cursor: Cursor) -> None:
        """Replace the file, if it is still what this follower left."""
        found = self._read_cursor(shard)
        if found != self._stored[shard] and found != cursor:
            raise CursorFenced(f"dead letters of shard {shard}: the cursor stands at {found}")
        path = self._path(shard)
        unfinished = path.with_suffix(".unfinished")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(msgspec.json.encode(cursor))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise FailedDependency(f"dead letters: cursor {path}: {error}") from error


def tally_letters(
    generation: int, shard: int, letters: Sequence[tuple[int, int, int, str]]
) -> Tally:
    """Return the tally of refused deltas given as (lane, offset, index, verdict)."""
    columns = list(zip(*letters, strict=True)) or [(), (), (), ()]
    verdicts = [VERDICTS.index(verdict) for verdict in columns[3]]
    return tally([generation, shard, *columns[:3], verdicts], len(verdicts))


def _lane(letter: Letter) -> Lane:
    assert letter.lane in LANES
    return "commands" if letter.lane == "commands" else "deltas"


def _with_original(letter: Letter, record: Record | None, key: bytes, holder: bytes) -> Letter:
    """Return the letter with its record; of a frame's many letters the first holds the bytes."""
    if record is None:
        return msgspec.structs.replace(letter, gone=True)
    name = None if record.key is None else record.key.decode(errors="replace")
    kept = b64encode(record.value[:ORIGINAL_BYTES_MAX]).decode() if key == holder else None
    return msgspec.structs.replace(
        letter,
        record_key=name,
        content_type=record.content_type,
        appended_ms=record.appended_ms,
        bytes=len(record.value),
        digest=blake2b(record.value, digest_size=16).hexdigest(),
        original=kept,
        original_in="" if key == holder else holder.decode(),
    )


def _blocks(
    letters: Sequence[tuple[bytes, bytes, str]],
) -> list[list[tuple[bytes | None, bytes, str]]]:
    """Return the letters cut by number and bytes, so that no request is too big for the log."""
    blocks: list[list[tuple[bytes | None, bytes, str]]] = []
    size = 0
    for letter in letters:
        size += len(letter[1])
        if not blocks or len(blocks[-1]) >= LETTERS_PER_APPEND or size > BYTES_PER_APPEND:
            blocks.append([])
            size = len(letter[1])
        blocks[-1].append(letter)
    return blocks


async def _records(log: Log, begin: int) -> AsyncIterator[Record]:
    """Yield the records from offset ``begin`` to the end that the log has now."""
    end = await log.end()
    after = max(begin, await log.start()) - 1
    empty = 0
    while after + 1 < end:
        found = await log.read(after, limit=READ_RECORDS_MAX, wait_ms=READ_WAIT_MS)
        for record in found:
            yield record
        if found:
            after, empty = found[-1].offset, 0
            continue
        empty += 1  # a busy log may need longer than one wait; to stop here would count too few
        if empty == READ_TRIES:
            raise FailedDependency(f"dead letters after {after} did not come")
