"""What was measured, as JSON and as a table for people."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from perf.peers.rounds import OURS, OURS_BY_FRAMES, START_EVENTS, Bench, Taken

TITLES = {
    OURS: "repricer, the production owner",
    OURS_BY_FRAMES: "repricer, the same by columnar frames",
}


def summary(bench: Bench, kafka_version: str) -> dict[str, Any]:
    """Return everything as plain values: medians of the rounds, ratios of pairs."""
    settings = bench.work.settings
    by_wire = (bench.taken.get(OURS, []), bench.taken.get(OURS_BY_FRAMES, []))
    rows = []
    for name, title in TITLES.items():
        taken = bench.taken.get(name, [])
        if taken:
            keeps = str(taken[0].detail["durability"])
            rows.append(_row(name, title, "", keeps, taken, by_wire))
    for peer in bench.peers:
        taken = bench.taken.get(peer.name, [])
        if taken:
            rows.append(_row(peer.name, peer.title, peer.version, peer.keeps, taken, by_wire))
    return {
        "events": settings.events,
        "listings": settings.listings,
        "partitions": settings.partitions,
        "message_bytes": len(next(iter(bench.work.messages(1)))[2]),
        "rounds": max(map(len, bench.taken.values()), default=0),
        "start_run_events": START_EVENTS,
        "reference_sha256": bench.reference(settings.events),
        "rows": rows,
        "failed": bench.failures,
        "kafka": kafka_version,
    }


def _row(
    name: str,
    title: str,
    version: str,
    keeps: str,
    taken: Sequence[Taken],
    by_wire: tuple[Sequence[Taken], Sequence[Taken]],
) -> dict[str, Any]:
    by_json, by_frames = (_over(taken, ours) for ours in by_wire)
    return {
        "name": name,
        "title": title,
        "version": version,
        "events": taken[0].events,
        "net_cpu_s_a_million": round(median(each.cpu_s_a_million for each in taken), 3),
        "net_cpu_s_a_million_each": [round(each.cpu_s_a_million, 3) for each in taken],
        "events_a_second": round(median(each.events / each.wall_s for each in taken)),
        "peak_rss_mb": round(median(each.peak_rss_mb for each in taken)),
        "start_cpu_s": round(median(each.start_cpu_s for each in taken), 2),
        "emitted": taken[-1].emitted,
        "durability": keeps,
        "sha256": taken[-1].sha256,
        "equal": all(each.equal for each in taken),
        "ratio": by_json[0],
        "ratio_range": by_json[1],
        "ratio_by_frames": by_frames[0],
        "ratio_by_frames_range": by_frames[1],
    }


def _over(taken: Sequence[Taken], ours: Sequence[Taken]) -> tuple[float | None, list[float] | None]:
    """Return what somebody's CPU is of ours by one wire: the median of the rounds and the range."""
    ratios = [
        theirs.cpu_s_a_million / own.cpu_s_a_million
        for theirs, own in zip(taken, ours, strict=False)
    ]
    # Who did other work is not compared, and neither is anybody with ours if that did other work.
    if not ratios or not all(each.equal for each in (*taken, *ours)):
        return None, None
    return round(median(ratios), 2), [round(min(ratios), 2), round(max(ratios), 2)]


def markdown(result: dict[str, Any]) -> str:
    """Return the table that people read."""
    lines = [
        f"{result['events']:,} messages of {result['message_bytes']} bytes, "
        f"{result['listings']:,} listings, {result['partitions']} partitions, one process each, "
        f"{result['rounds']} rounds, medians; net of a run of {result['start_run_events']:,}.",
        "",
        "| system | net CPU-s / M | times ours by JSON (range) | times ours by frames (range) "
        "| events/s | RSS MB | emitted | same table | durability |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['title']} {row['version']} | {row['net_cpu_s_a_million']} "
            f"| {told(row, 'ratio')} | {told(row, 'ratio_by_frames')} | {row['events_a_second']:,} "
            f"| {row['peak_rss_mb']:,} | {row['emitted']:,} "
            f"| {'yes' if row['equal'] else 'NO'} | {row['durability']} |"
        )
    lines += [f"\n{name} failed: {why.splitlines()[0]}" for name, why in result["failed"].items()]
    return "\n".join(lines)


def told(row: dict[str, Any], ratio: str) -> str:
    """Return a ratio with its range, as the table holds it."""
    low, high = row[f"{ratio}_range"] or (None, None)
    return f"{row[ratio]} ({low} - {high})" if row[ratio] is not None else "-"
