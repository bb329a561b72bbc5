"""``feed``: a file becomes deltas."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
from cyclopts import Parameter

from cluster.assembly import make_logs
from cluster.commands.speaking import Common, Voice, progress_of, run, settings_of, table
from cluster.feeding import (
    Bookmark,
    Feed,
    Pace,
    Router,
    bookmark_file,
    read_bookmark,
    write_bookmark,
)
from cluster.mapping import (
    FileMapping,
    RowMapper,
    load_mapping,
    opening_deltas,
)
from cluster.processes import write_file
from cluster.rows_by_time import PathRows, TableRows
from cluster.settings import Settings
from cluster.topics import prepare_logs
from engine.deltas import AnyDelta, PolicyChanged
from engine.errors import RejectedInput

BATCH_DELTAS = 20_000
SYNTHETIC_NAME = "synthetic-oj"
REJECTED_SHOWN = 10


class PolicyOfScope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scope of a policy file."""

    scope: Literal["retailer", "channel", "category", "tag", "listing"] = "retailer"
    key: str = ""
    priority: int = 0
    fields: dict[str, Any]


def feed(
    file: Annotated[Path | None, Parameter(help="CSV with a header, or Parquet")] = None,
    *,
    mapping: Annotated[Path, Parameter(help="how columns become deltas")] = Path(
        "docs/examples/oj.json"
    ),
    policy: Annotated[Path | None, Parameter(help="policy sent before the first row")] = None,
    synthetic_oj: Annotated[
        bool, Parameter(negative="", help="a made table of the shape of docs/examples/oj.json")
    ] = False,
    weeks: Annotated[int, Parameter(help="of the synthetic table")] = 121,
    speed: Annotated[float, Parameter(help="deltas a second; 0: as fast as it goes")] = 0.0,
    clock: Annotated[
        Literal["event"] | None, Parameter(help="the file's own times; needs shards.clock = event")
    ] = None,
    ends: Annotated[
        Literal["now"] | None, Parameter(help="move all times so that the last is now")
    ] = None,
    wire: Annotated[Literal["json", "frames"], Parameter(help="one delta a record, or many")] = (
        "frames"
    ),
    rejects: Annotated[
        Path | None, Parameter(help="where rejected rows are listed; default: in the folder")
    ] = None,
    again: Annotated[
        bool, Parameter(negative="", help="begin anew although an earlier feed was interrupted")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="map and judge, send nothing")] = False,
    common: Common | None = None,
) -> int:
    """Turn a CSV or Parquet file into deltas, in the order of their time.

    An interrupted feed goes on where it was; sending a row twice changes nothing.
    """
    voice, settings = Voice(common), settings_of(common)
    if (file is None) == (not synthetic_oj):
        raise RejectedInput("/file", "name one file, or --synthetic-oj", "repricer feed prices.csv")
    if (clock is None) == (ends is None):
        fix = "--clock event for history, --ends now for a live shop"
        raise RejectedInput("/clock", "say whose time counts", fix)
    if clock != ("event" if settings.shards.clock == "event" else None):
        problem = f"shards.clock is {settings.shards.clock!r}, the feed was told {clock or 'now'!r}"
        raise RejectedInput("/clock", problem, "use --set shards.clock=event with up and feed")
    how = load_mapping(mapping)
    content = PathRows(file) if file is not None else TableRows(_synthetic(weeks))
    opening = [*policy_deltas(policy, how.retailer)] if policy is not None else []
    label = f"{settings.folder}|{wire}|{policy}|{weeks if synthetic_oj else ''}"
    mark = bookmark_file(settings.folder, file or mapping, mapping, label)
    result = run(
        _feed(
            settings,
            voice,
            RowMapper(how, content, source=file.stem if file else SYNTHETIC_NAME),
            how,
            opening,
            mark,
            speed=speed,
            shift_to_now=ends == "now",
            wire=wire,
            again=again,
            dry_run=dry_run,
            rejects=rejects or settings.folder / "feeds" / f"{mark.stem}-rejected.json",
        )
    )
    shown = table("feed", "", "")
    for name, value in result.items():
        if name != "first_rejected":
            shown.add_row(name.replace("_", " "), str(value))
    lines = [
        f"row {each['row']}, {each['field']}: {each['problem']} ({each['fix']})"
        for each in result["first_rejected"]
    ]
    voice.answer(result, shown, *lines)
    return 0


def _synthetic(weeks: int) -> pa.Table:
    from training.worlds.orange_juice import synthetic_oj

    return synthetic_oj(weeks=weeks)


def policy_deltas(path: Path, retailer: str) -> list[PolicyChanged]:
    """Read a policy file: a list of scopes with their fields.

    Raises:
        RejectedInput: it is missing or wrong.
    """
    try:
        scopes = msgspec.json.decode(path.read_bytes(), type=list[PolicyOfScope])
    except OSError as error:
        raise RejectedInput("/policy", f"{path}: {error.strerror}", "name a policy file") from None
    except msgspec.MsgspecError as error:
        fix = "a list of {scope, key, priority, fields}"
        raise RejectedInput("/policy", f"{path}: {error}", fix) from None
    return [
        PolicyChanged(
            retailer=retailer,
            scope=each.scope,
            key=each.key,
            priority=each.priority,
            fields=each.fields,
            observed_ms=0,
        )
        for each in scopes
    ]


async def _feed(
    settings: Settings,
    voice: Voice,
    rows: RowMapper,
    how: FileMapping,
    policies: Sequence[PolicyChanged],
    mark: Path,
    *,
    speed: float,
    shift_to_now: bool,
    wire: Literal["json", "frames"],
    again: bool,
    dry_run: bool,
    rejects: Path,
) -> dict[str, Any]:
    first_ms, last_ms = rows.sort()
    bookmark = None if again else read_bookmark(mark)
    if bookmark is not None and bookmark.done:
        bookmark = None  # the whole file once more: it changes nothing, and that may be the point
    shift_ms = time.time_ns() // 1_000_000 - last_ms if shift_to_now else 0
    if bookmark is not None:
        shift_ms = bookmark.shift_ms
        voice.say(f"going on after row {bookmark.rows} of an interrupted feed; --again begins anew")
    begin = bookmark.rows if bookmark is not None else 0
    logs = make_logs(settings)
    sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads), wire)
    pace = Pace(speed)
    began = time.monotonic()
    batch: list[AnyDelta] = []
    mapped_deltas = 0
    most = pace.batch(BATCH_DELTAS)
    try:
        if not dry_run:
            await prepare_logs(settings, logs)
        if begin == 0:
            opening_ms = first_ms + shift_ms
            batch += opening_deltas(how, opening_ms)
            batch += [msgspec.structs.replace(each, observed_ms=opening_ms) for each in policies]
        with progress_of(voice) as progress:
            task = progress.add_task("rows", total=len(rows), completed=begin)
            done = begin
            for mapped in rows.rows(begin, shift_ms=shift_ms):
                batch += mapped.deltas
                done += 1
                if len(batch) < most:
                    continue
                mapped_deltas += len(batch)
                await pace.take(len(batch))
                if not dry_run:
                    await sender.send(batch)
                    write_bookmark(mark, Bookmark(rows=done, shift_ms=shift_ms))
                batch = []
                progress.update(task, completed=done)
            mapped_deltas += len(batch)
            if batch and not dry_run:
                await sender.send(batch)
            progress.update(task, completed=done)
    finally:
        if not dry_run:
            await sender.close()
        await logs.close()
        rows.close()
    seconds = time.monotonic() - began
    if not dry_run:
        write_bookmark(mark, Bookmark(rows=len(rows), shift_ms=shift_ms, done=True))
    if rows.rejected:
        write_file(rejects, rows.rejected, mode=0o644)
    return {
        "rows": len(rows) - begin,
        "deltas": mapped_deltas,
        "sent": sender.sent,
        "records": sender.records,
        "bytes": sender.bytes,
        "rejected": len(rows.rejected),
        "rejected_in": str(rejects) if rows.rejected else None,
        "first_rejected": msgspec.to_builtins(rows.rejected[:REJECTED_SHOWN]),
        "in_doubt": sender.doubts,
        "seconds": round(seconds, 2),
        "deltas_per_s": round(mapped_deltas / max(seconds, 1e-9)),
        "first_ms": first_ms + shift_ms,
        "last_ms": last_ms + shift_ms,
    }
