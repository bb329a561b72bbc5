"""Checkpoint files: chains, damage, replaced writers, bases merged by another process."""

import asyncio
import fcntl
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from engine.decided import Decided, no_quotes
from engine.errors import (
    CorruptCheckpoint,
    FailedDependency,
    IncompatibleCheckpoint,
    LogRegressed,
    StaleEpoch,
)
from persistence import checkpoints
from persistence.checkpoints import (
    CheckpointFiles,
    Header,
    Increment,
    PartBytes,
    decode_increment,
    encode_increment,
    merge_base,
    name_of,
    stands_in_log,
    stem_of,
)
from persistence.decision_records import DecisionRecord, LogPosition, Stamp, encode
from persistence.memory_log import MemoryLogs
from persistence.ports import DECISIONS, Log, Record
from tests.persistence.counted_folder import CountedFolder

OWNER = b"o" * 16


def increment(
    seq: int, *, parent: str = "", epoch: int = 1, parts: Sequence[bytes] = ()
) -> Increment:
    return Increment(
        shard=0,
        generation=1,
        position=LogPosition(b"l" * 16, seq, epoch, OWNER, seq),
        last_command=-1,
        last_delta=seq,
        decided_ms=seq,
        digest=seq,
        replay_domain="toy",
        parent=stem_of(parent) if parent else "",
        parts=tuple(parts) or (f"part {seq}".encode(),),
    )


async def chain_of_three(files: CheckpointFiles) -> list[str]:
    names = [await files.save(increment(1, parts=[b"a", b"b"]))]
    names.append(await files.save(increment(2, parent=names[0])))
    names.append(await files.save(increment(3, parent=names[1])))
    return names


async def test_a_chain_comes_back_base_first(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    assert await files.load() is None
    names = await chain_of_three(files)
    loaded = await CheckpointFiles(tmp_path).load()
    assert loaded is not None
    parts, position = loaded
    assert parts == (b"a", b"b", b"part 2", b"part 3")
    assert position.seq == 3
    assert await files.names() == names


@pytest.mark.parametrize("harmed", [0, 1, 2])
@pytest.mark.parametrize("harm", ["torn", "flipped", "lost"])
async def test_damage_costs_only_what_stands_on_it(tmp_path: Path, harmed: int, harm: str) -> None:
    """The newest chain that verifies is taken: what the damaged file is part of is not."""
    files = CheckpointFiles(tmp_path)
    names = await chain_of_three(files)
    path = tmp_path / names[harmed]
    content = path.read_bytes()
    if harm == "lost":
        path.unlink()
    elif harm == "torn":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    loaded = await files.load()
    assert (loaded[1].seq if loaded else 0) == harmed


def test_every_bit_is_checked() -> None:
    """Each byte of a file, one bit flipped: never taken for a checkpoint."""
    content = b"".join(encode_increment(increment(1, parts=[b"ab", b"c"])))
    assert decode_increment(content).parts == (b"ab", b"c")
    for at in range(len(content)):
        flipped = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        with pytest.raises(CorruptCheckpoint):
            decode_increment(flipped)


def test_what_is_read_is_not_copied() -> None:
    """A base is as large as its shard: a successor would need its room twice."""
    content = b"".join(encode_increment(increment(1, parts=[b"ab", b"c"])))
    for part in decode_increment(content).parts:
        assert isinstance(part, memoryview)
        assert part.obj is content


def test_many_bytes_are_verified_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [bytes([number]) * number for number in range(1, 40)]
    content = b"".join(encode_increment(increment(1, parts=parts)))
    by: set[int] = set()

    def digest(part: PartBytes) -> bytes:
        by.add(threading.get_ident())
        return blake2b(part, digest_size=checkpoints.DIGEST_BYTES).digest()

    monkeypatch.setattr(checkpoints, "_digest", digest)
    monkeypatch.setattr(checkpoints, "TOGETHER_BYTES_MIN", sum(map(len, parts)))
    assert content == b"".join(encode_increment(increment(1, parts=parts)))
    assert list(decode_increment(content).parts) == parts
    assert len(by - {threading.get_ident()}) > 0
    torn = content[:-1] + b"\xff"
    with pytest.raises(CorruptCheckpoint, match=f"the part at byte {len(content) - 39} "):
        decode_increment(torn)


async def test_what_is_restored_was_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = CheckpointFiles(tmp_path)
    await chain_of_three(files)
    hashed: list[bytes] = []

    def digest(part: PartBytes) -> bytes:
        hashed.append(bytes(part))
        return blake2b(part, digest_size=checkpoints.DIGEST_BYTES).digest()

    async def counts(name: str, header: Header) -> bool:
        return True

    monkeypatch.setattr(checkpoints, "_digest", digest)
    chain = await files.newest(counts)
    assert chain is not None
    for part in chain.parts:
        assert hashed.count(bytes(part)) == 1


def test_a_header_that_lacks_a_field_is_of_another_version() -> None:
    """Its digest is right, so it is named for what it is and not passed over as torn."""
    whole = b"".join(encode_increment(increment(1, parts=[b"ab"])))
    end = 10 + int.from_bytes(whole[6:10], "little")
    fields = msgspec.msgpack.decode(whole[10:end])
    del fields["digests"]
    header = msgspec.msgpack.encode(fields)
    lead = whole[:6] + len(header).to_bytes(4, "little")
    digest = blake2b(lead + header, digest_size=checkpoints.DIGEST_BYTES).digest()
    with pytest.raises(IncompatibleCheckpoint, match="another header"):
        decode_increment(lead + header + digest + b"ab")


async def test_a_chain_of_another_version_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An upgrade meets what an older build left: an older chain that is read takes its place."""

    def check(part: PartBytes) -> None:
        if bytes(part).startswith(b"new"):
            raise IncompatibleCheckpoint(found="format 9", wanted="format 2")

    files = CheckpointFiles(tmp_path, check)
    names = await chain_of_three(files)
    other = await files.save(increment(4, parent=names[2], parts=[b"new"]))
    content = (tmp_path / names[0]).read_bytes()
    later = name_of(increment(5))
    (tmp_path / later).write_bytes(content[:4] + (7).to_bytes(2, "little") + content[6:])
    for _ in range(2):
        loaded = await files.load()
        assert loaded is not None
        assert loaded[1].seq == 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "once a file, not at each look"
    assert (
        f"checkpoint {later}: it is of file format 7, this version reads file format 1" in said[0]
    )
    assert f"checkpoint {other}: it is of format 9, this version reads format 2; start" in said[1]
    assert set(files.incompatible) == {later, other}
    with pytest.raises(IncompatibleCheckpoint, match=other):
        await files.receive(other, await files.content(other))


async def test_a_replaced_writer_is_refused(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    await files.save(increment(5, epoch=3))
    with pytest.raises(StaleEpoch):
        await files.save(increment(6, epoch=2))
    await files.save(increment(7, epoch=3))


async def test_a_lock_that_another_holds_is_waited_for_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = CheckpointFiles(tmp_path)
    with open(tmp_path / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        saving = asyncio.create_task(files.save(increment(1)))
        await asyncio.sleep(0.1)
        assert not saving.done()
        fcntl.flock(lock, fcntl.LOCK_UN)
        await saving
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(checkpoints, "LOCK_DEADLINE_S", 0.1)
        with pytest.raises(OSError, match="has held"):
            async with asyncio.timeout(10):
                await files.save(increment(2))
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert len(await files.names()) == 1


async def test_an_increment_without_its_parent_is_refused(tmp_path: Path) -> None:
    """Nobody could ever read it; its writer begins with a new base."""
    files = CheckpointFiles(tmp_path)
    names = await chain_of_three(files)
    (tmp_path / names[2]).unlink()
    with pytest.raises(CorruptCheckpoint, match="is gone"):
        await files.save(increment(4, parent=names[2]))


def test_a_merged_base_takes_the_chains_place(tmp_path: Path) -> None:
    """In a process of its own; what was added meanwhile still finds its parent."""
    import asyncio

    files = CheckpointFiles(tmp_path)
    names = asyncio.run(chain_of_three(files))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        merged = pool.submit(partial(merge_base, files, list, keep=1)).result(60)
    assert merged is not None
    assert stem_of(merged) == stem_of(names[2])
    assert asyncio.run(files.names()) == [merged], "what nobody needs is gone"
    added = asyncio.run(files.save(increment(4, parent=names[2])))
    loaded = asyncio.run(files.load())
    assert loaded is not None
    assert loaded[0] == (b"a", b"b", b"part 2", b"part 3", b"part 4")
    assert asyncio.run(files.names()) == [merged, added]


async def test_pruning_keeps_what_kept_chains_need(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    old = await chain_of_three(files)
    base = await files.save(increment(8))
    newest = await files.save(increment(9, parent=base))
    assert await files.prune(1) == old
    assert await files.names() == [base, newest]


async def test_a_checkpoint_a_day_is_pinned_as_long_as_the_log_lasts(tmp_path: Path) -> None:
    """Its oldest base: an increment needs all that stand before it."""
    files = CheckpointFiles(tmp_path)
    made: dict[tuple[int, str], str] = {}
    seq = 0
    for day in range(6):
        parent = made.get((day - 1, "late"), "")
        for kind in ("early", "base", "late"):
            seq += 1
            one = increment(seq, parent=parent if kind == "early" else "")
            made[day, kind] = await files.save(
                replace(one, decided_ms=day * 86_400_000 + seq)
                if kind != "late"
                else replace(
                    increment(seq, parent=made[day, "base"]), decided_ms=day * 86_400_000 + seq
                )
            )
    removed = await files.prune(1, pinned_days=3)
    kept = await files.names()
    assert kept == [made[3, "base"], made[4, "base"], made[5, "base"], made[5, "late"]]
    assert set(removed) == set(made.values()) - set(kept)
    assert await files.prune(1, pinned_days=3) == [], "the pin of a day stays the same"


async def test_shipped_files_are_verified(tmp_path: Path) -> None:
    here, there = CheckpointFiles(tmp_path / "here"), CheckpointFiles(tmp_path / "there")
    name = await here.save(increment(1))
    content = await here.content(name)
    with pytest.raises(CorruptCheckpoint):
        await there.receive(name, content[:-1])
    with pytest.raises(CorruptCheckpoint):
        await there.receive(name.replace("-base", "-added"), content)
    await there.receive(name, content)
    assert await there.load() == await here.load()


class TestStandsInLog:
    """A checkpoint counts only if the decision that it names is in the log."""

    @pytest.fixture
    async def log(self) -> Log:
        logs = MemoryLogs()
        await logs.create({DECISIONS: 1}, retention_ms=10**12)
        log = await logs.open(DECISIONS, 0)
        appender = await log.appender()
        for seq in range(4):
            decided = Decided(
                seq=seq,
                last_command=-1,
                last_delta=-1,
                decided_ms=1,
                model="toy",
                digest=0,
                quotes=no_quotes(),
            )
            by = Stamp(log_id=b"l" * 16, generation=1, shard=0, epoch=1, owner=OWNER)
            await appender.append(encode(DecisionRecord(by, decided)))
        return log

    async def test_its_own_record_is_found(self, log: Log) -> None:
        position = increment(2).position
        assert await stands_in_log(position, log, shard=0, generation=1)

    @pytest.mark.parametrize(
        "change", [{"owner": b"z" * 16}, {"epoch": 2}, {"seq": 3}, {"log_id": b"m" * 16}]
    )
    async def test_anothers_record_is_not(self, log: Log, change: dict[str, object]) -> None:
        position = replace(increment(2).position, **change)
        assert not await stands_in_log(position, log, shard=0, generation=1)

    async def test_a_record_of_other_content_is_not(self, log: Log) -> None:
        """Two of one start bear one name: only what they decided tells them apart."""
        position = increment(2).position
        assert await stands_in_log(position, log, shard=0, generation=1, digest=0)
        assert not await stands_in_log(position, log, shard=0, generation=1, digest=7)

    async def test_a_log_that_ends_before_it_lost_data(self, log: Log) -> None:
        with pytest.raises(LogRegressed):
            await stands_in_log(increment(4).position, log, shard=0, generation=1)

    async def test_a_log_that_is_slow_says_nothing_about_it(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Taken for a record that is not there, it would cost the checkpoint and a long replay."""

        async def nothing_yet(*_: object, **__: object) -> list[Record]:
            return []

        monkeypatch.setattr(log, "read", nothing_yet)
        with pytest.raises(FailedDependency):
            await stands_in_log(increment(2).position, log, shard=0, generation=1)


async def test_heads_are_the_chains_without_parts_and_read_a_file_once(tmp_path: Path) -> None:
    await chain_of_three(CheckpointFiles(tmp_path))
    folder = CountedFolder(tmp_path)
    files = CheckpointFiles(folder)
    heads = [head async for head in files.heads()]
    assert folder.looked() == await files.names()
    chains = [chain async for chain in files.candidates()]
    assert heads == [replace(chain, parts=()) for chain in chains]
    assert [await files.whole(head) for head in heads] == chains


async def test_a_head_stands_on_sound_files_only(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    base, second, _ = await chain_of_three(files)
    content = bytearray((tmp_path / second).read_bytes())
    content[-1] ^= 1
    (tmp_path / second).write_bytes(content)
    assert [head.name async for head in files.heads()] == [base]


async def test_a_mark_is_judged_before_its_chain_is_read(tmp_path: Path) -> None:
    """A chain of an hour is many times as large as its shard, and may not count after all."""
    names = await chain_of_three(CheckpointFiles(tmp_path))
    folder = CountedFolder(tmp_path)
    files = CheckpointFiles(folder)
    judged: list[int] = []

    async def counts(name: str, header: Header) -> bool:
        judged.append(header.position.seq)
        return name == counting

    counting = ""
    assert await files.newest(counts) is None
    assert judged == [3, 2, 1]
    assert folder.looked() == names
    counting = names[1]
    chain = await files.newest(counts)
    assert chain is not None
    assert chain.parts == (b"a", b"b", b"part 2")
    assert folder.looked() == names


async def test_a_mark_that_counts_on_a_broken_chain_gives_way_to_an_older_one(
    tmp_path: Path,
) -> None:
    files = CheckpointFiles(tmp_path)
    base, second, _ = await chain_of_three(files)
    (tmp_path / second).write_bytes(b"")

    async def counts(name: str, header: Header) -> bool:
        return True

    chain = await files.newest(counts)
    assert chain is not None
    assert chain.name == base


async def test_who_cannot_judge_a_mark_is_heard(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path)
    await chain_of_three(files)

    async def counts(name: str, header: Header) -> bool:
        raise TimeoutError("of the log, not of the folder")

    with pytest.raises(TimeoutError):
        await files.newest(counts)
