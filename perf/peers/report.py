"""What was measured, as JSON and as a table for people."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from perf.peers.rounds import OURS, START_EVENTS, Bench, Taken

OURS_TITLE = "repricer, the production owner"


def summary(bench: Bench, kafka_version: str) -> dict[str, Any]:
    """Return everything as plain values: medians of the rounds, ratios of pairs."""
    settings = bench.work.settings
    ours = bench.taken.get(OURS, [])
    keeps = str(ours[0].detail["durability"]) if ours else ""
    rows = [_row(OURS, OURS_TITLE, "", keeps, ours, ours)] if ours else []
    for peer in bench.peers:
        taken = bench.taken.get(peer.name, [])
        if taken:
            rows.append(_row(peer.name, peer.title, peer.version, peer.keeps, taken, ours))
    return {
        "what": "peers",
        "events": settings.events,
        "listings": settings.listings,
        "partitions": settings.partitions,
        "message_bytes": len(next(iter(bench.work.messages(1)))[2]),
        "rounds": max(map(len, bench.taken.values()), default=0),
        "start_run_events": START_EVENTS,
        "reference_sha256": bench.reference(settings.events),
        "rows": rows,
        "failed": bench.failures,
        "environment": environment(kafka_version),
    }


def _row(
    name: str, title: str, version: str, keeps: str, taken: Sequence[Taken], ours: Sequence[Taken]
) -> dict[str, Any]:
    equal = all(each.equal for each in taken)
    ratios = [
        theirs.cpu_s_a_million / own.cpu_s_a_million
        for theirs, own in zip(taken, ours, strict=False)
    ]
    # Who did other work is not compared, and neither is anybody with ours if that did other work.
    compared = ratios and equal and all(each.equal for each in ours)
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
        "equal": equal,
        "ratio": round(median(ratios), 2) if compared else None,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)] if compared else None,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table that people read."""
    lines = [
        f"{result['events']:,} messages of {result['message_bytes']} bytes, "
        f"{result['listings']:,} listings, {result['partitions']} partitions, one process each, "
        f"{result['rounds']} rounds, medians; net of a run of {result['start_run_events']:,}.",
        "",
        "| system | net CPU-s / M | times ours (range) | events/s | RSS MB | emitted "
        "| same table | durability |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["ratio_range"] or (None, None)
        ratio = f"{row['ratio']} ({low} - {high})" if row["ratio"] is not None else "-"
        lines.append(
            f"| {row['title']} {row['version']} | {row['net_cpu_s_a_million']} | {ratio} "
            f"| {row['events_a_second']:,} | {row['peak_rss_mb']:,} | {row['emitted']:,} "
            f"| {'yes' if row['equal'] else 'NO'} | {row['durability']} |"
        )
    lines += [f"\n{name} failed: {why.splitlines()[0]}" for name, why in result["failed"].items()]
    lines += ["", ", ".join(f"{name} {value}" for name, value in result["environment"].items())]
    return "\n".join(lines)


def environment(kafka_version: str) -> dict[str, Any]:
    """Return what it was measured on."""
    model = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "linux": os.uname().release.split("-")[0],
        "governor": governor.read_text().strip() if governor.is_file() else "unknown",
        "load": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "kafka": kafka_version,
    }
