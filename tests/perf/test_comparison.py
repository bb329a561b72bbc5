"""Stores are compared with a log that goes on growing: rows on their way are no difference."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actors.sinks.history import History
from actors.sinks.log_summary import LogSummary, summarize_log
from perf.comparison import TRIES, compared
from persistence.ports import DECISIONS
from persistence.sqlite_series import SqliteSeries
from tests.actors.sinks.recorded import RecordedShard
from tests.actors.sinks.stores import sqlite_path


class Interrupted:
    """A history whose follower writes on between the reading of its cursor and the count."""

    def __init__(self, series: SqliteSeries) -> None:
        self._series = series
        self.meanwhile: list[Any] = []

    async def fetch(self, sql: str) -> list[Mapping[str, Any]]:
        rows = await self._series.fetch(sql)
        if "from cursors" in sql and self.meanwhile:
            await self.meanwhile.pop()()
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._series, name)


async def filled(tmp_path: Path) -> tuple[RecordedShard, SqliteSeries, Sequence[Any]]:
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(30)
    return recorded, SqliteSeries(sqlite_path(tmp_path)), await recorded.accepted(None)


async def told_by(recorded: RecordedShard, seq: int | None) -> LogSummary:
    log = await recorded.logs.open(DECISIONS, recorded.shard)
    return await summarize_log(
        log,
        recorded.lanes,
        shard=recorded.shard,
        generation=recorded.generation,
        through_seq=seq,
    )


async def test_rows_on_their_way_are_counted_again(tmp_path: Path) -> None:
    recorded, series, accepted = await filled(tmp_path)
    writer = History(series, recorded.lanes, generation=recorded.generation)
    await writer.write(recorded.shard, accepted[:10], await writer.position(recorded.shard))
    watched = Interrupted(series)
    reader = History(watched, recorded.lanes, generation=recorded.generation)  # type: ignore[arg-type]
    await reader.position(recorded.shard)
    rest = partial(writer.write, recorded.shard, accepted[10:], accepted[9].position)
    watched.meanwhile.append(rest)
    holds = partial(reader.summary, recorded.shard)
    found = await compared("history", holds, partial(told_by, recorded), again_s=0)
    assert not watched.meanwhile
    assert found.gone and all(each.startswith("history: ") for each in found.gone)
    assert found.unequal == []
    assert found.told.seq == accepted[-1].position.seq
    await series.close()


async def test_a_row_too_many_differs_however_often_it_is_counted(tmp_path: Path) -> None:
    recorded, series, accepted = await filled(tmp_path)
    writer = History(series, recorded.lanes, generation=recorded.generation)
    await writer.write(recorded.shard, accepted, await writer.position(recorded.shard))
    row = (await series.fetch("select * from prices order by seq, item limit 1"))[0]
    await series.append("prices", {name: [value] for name, value in row.items()} | {"seq": [9_999]})
    counts = []

    async def holds() -> Any:
        counts.append(await writer.summary(recorded.shard))
        return counts[-1]

    found = await compared("history", holds, partial(told_by, recorded), again_s=0)
    assert len(counts) == TRIES
    assert len(found.unequal) == 1 and "prices" in found.unequal[0]
    assert found.gone == []
    await series.close()
