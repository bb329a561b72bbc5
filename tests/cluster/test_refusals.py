"""A start refuses what contradicts the log, and packages that are not ours."""

import sys
from pathlib import Path

import msgspec
import pytest

from cluster.settings import Settings, load
from cluster.topics import prepare_logs, recorded_generation, topics_of
from cluster.tree import PACKAGES, refuse_shadowed_packages
from cluster.watching import Canary, generation_of, reader_near_end
from engine.errors import FailedDependency, SettingsRefused
from persistence.decision_records import CONTENT_TYPE, EpochStarted, Stamp, Trying, encode
from persistence.memory_log import MemoryLog, MemoryLogs
from persistence.ports import DECISIONS, WATCH, Record

ROOT = Path(__file__).resolve().parents[2]


def settings(**shards: object) -> Settings:
    return load({"shards": shards})


async def logs_of(first: Settings) -> MemoryLogs:
    """Return logs on which an engine with these settings ran."""
    logs = MemoryLogs()
    await prepare_logs(first, logs)
    log = await logs.open(WATCH, 0)
    appender = await log.appender()
    canary = Canary(cut=generation_of(first), sent_ms=1, pid=1)
    await appender.append(msgspec.json.encode(canary))
    return logs


async def test_the_log_remembers_how_it_was_cut() -> None:
    logs = await logs_of(settings(count=3, spreads={"big": 2}))
    recorded = await recorded_generation(logs)
    assert recorded == generation_of(settings(count=3, spreads={"big": 2}))


async def nothing_yet(*_: object, **__: object) -> list[Record]:
    """Read of a log that says where it ends and gives nothing in time."""
    return []


async def test_a_slow_log_is_no_log_without_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a slow broker would let a start with another cut pass."""
    first = settings(count=3)
    logs = await logs_of(first)
    with monkeypatch.context() as slow:
        slow.setattr(MemoryLog, "read", nothing_yet)
        with pytest.raises(FailedDependency):
            await prepare_logs(settings(count=3, generation=2), logs, patience_s=0)
    with pytest.raises(SettingsRefused):
        await prepare_logs(settings(count=3, generation=2), logs)


async def test_a_slow_log_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor's reader that began too early would know nobody who reigns."""
    logs = await logs_of(settings(count=1))
    log = await logs.open(DECISIONS, 0)
    start = EpochStarted(
        stamp=Stamp(log_id=b"l" * 16, generation=1, shard=0, epoch=4, owner=b"o" * 16),
        started_ms=1,
        replay_domain="",
        clock="wall",
        from_offset=-1,
        from_seq=0,
        first_offset=-1,
        partitions=1,
    )
    late = Stamp(log_id=b"l" * 16, generation=1, shard=0, epoch=3, owner=b"p" * 16)
    appender = await log.appender()
    for record in (start, Trying(start.stamp, 5, 6), Trying(late, 7, 8)):
        await appender.append(encode(record), content_type=CONTENT_TYPE)
    with monkeypatch.context() as slow:
        slow.setattr(MemoryLog, "read", nothing_yet)
        with pytest.raises(FailedDependency):
            await reader_near_end(log, shard=0, generation=1)
    reader, last = await reader_near_end(log, shard=0, generation=1)
    assert reader.epoch == 4
    assert last is not None
    assert last.trying == Trying(start.stamp, 5, 6), "what its owner was at"


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"generation": 2}, "shards.generation"),
        ({"spreads": {"big": 4}}, "shards.spreads"),
        ({"spreads": {}}, "shards.spreads"),
        ({"clock": "event"}, "shards.clock"),
    ],
)
async def test_another_cut_is_refused(changed: dict[str, object], names: str) -> None:
    logs = await logs_of(settings(count=3, spreads={"big": 2}))
    wanted = settings(**({"count": 3, "spreads": {"big": 2}} | changed))
    with pytest.raises(SettingsRefused, match=names):
        await prepare_logs(wanted, logs)


async def test_another_number_of_partitions_is_refused() -> None:
    logs = await logs_of(settings(count=3))
    with pytest.raises(SettingsRefused):
        await prepare_logs(settings(count=4), logs)


async def test_the_same_cut_starts_again() -> None:
    first = settings(count=3, spreads={"big": 2})
    logs = await logs_of(first)
    await prepare_logs(first, logs)
    assert set(topics_of(first).values()) == {3, 1}


def test_our_packages_are_ours() -> None:
    refuse_shadowed_packages(ROOT)


def test_a_shadowed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kernels` is also the name of another distribution's package."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "kernels"]:
        monkeypatch.delitem(sys.modules, name)
    assert "kernels" in PACKAGES
    with pytest.raises(SettingsRefused, match="kernels"):
        refuse_shadowed_packages(ROOT)
