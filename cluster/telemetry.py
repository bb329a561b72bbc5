"""What a process of ours says of itself: structured log lines and metrics.

Log lines go to a bounded file in the data folder and to standard error, which Ray keeps per actor
and shows in its dashboard. Metrics are computed when they are scraped, from the same state that
``status`` shows; no label names a retailer or a SKU.
"""

import logging
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LOG_BYTES_MAX: Final = 10_000_000
LOG_FILES: Final = 3


def version_of_repricer() -> str:
    """Return the installed version, or ``unknown`` from a bare checkout."""
    try:
        return version("repricer")
    except PackageNotFoundError:
        return "unknown"


def configure_logs(
    name: str, folder: Path, *, level: str, as_json: bool, aside: bool = True
) -> None:
    """Send every log line of this process to its file and, ``aside``, to standard error."""
    folder.mkdir(parents=True, exist_ok=True)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    in_json = structlog.stdlib.ProcessorFormatter(
        processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
    )
    for_people = structlog.stdlib.ProcessorFormatter(
        processor=structlog.dev.ConsoleRenderer(colors=False), foreign_pre_chain=shared
    )
    file = RotatingFileHandler(
        folder / f"{name}.log", maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES, encoding="utf-8"
    )
    file.setFormatter(in_json)
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(in_json if as_json else for_people)
    root = logging.getLogger()
    root.handlers[:] = [file, stream] if aside else [file]
    root.setLevel(level.upper())
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # every reconnect is a warning to it


Sample = tuple[str, str, Mapping[str, str], float]
"""A metric's name without the prefix, what it means, its labels and its value."""


class StateCollector:
    """Turns a process's state into metrics when they are scraped."""

    def __init__(self, role: str, samples: Callable[[], Iterable[Sample]]) -> None:
        self._role = role
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; names that end in ``_total`` are counters."""
        build = GaugeMetricFamily(
            "repricer_build_info", "what runs here", labels=["version", "python", "role"]
        )
        build.add_metric([version_of_repricer(), platform.python_version(), self._role], 1.0)
        yield build
        families: dict[str, Metric] = {}
        for name, meaning, labels, value in self._samples():
            full = f"repricer_{name}"
            if full not in families:
                kind = CounterMetricFamily if full.endswith("_total") else GaugeMetricFamily
                families[full] = kind(full, meaning, labels=list(labels))
            family = families[full]
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            family.add_metric(list(labels.values()), value)
        yield from families.values()


def make_registry(role: str, samples: Callable[[], Iterable[Sample]]) -> CollectorRegistry:
    """Return a registry that holds one process's metrics."""
    registry = CollectorRegistry()
    registry.register(StateCollector(role, samples))
    return registry


OWNER_METRICS: Final = {
    "last_mark_age_ms": ("last_mark_age_seconds", "since the last acknowledged mark", 1000.0),
    "epoch": ("epoch", "the reign of this owner", 1.0),
    "seq": ("decisions_total", "decisions of this shard since its beginning", 1.0),
    "listings": ("listings", "listings in memory", 1.0),
    "lag_ms": ("log_lag_seconds", "age of the oldest record fetched, not yet decided", 1000.0),
    "waiting_commands": ("waiting_commands", "commands fetched and not yet decided", 1.0),
    "waiting_deltas": ("waiting_deltas", "delta records fetched and not yet decided", 1.0),
    "backlog": ("backlog_rows", "listings and closes of periods that wait their turn", 1.0),
    "different": ("replay_divergence_total", "replayed decisions that differ", 1.0),
    "doubts": ("appends_in_doubt_total", "appends whose acknowledgement did not come", 1.0),
    "skipped": ("skipped_records_total", "records isolated because they killed owners", 1.0),
    "checkpoints": ("checkpoints_total", "checkpoints written by this owner", 1.0),
}
"""What an owner's state holds -> the metric's name, its meaning, and how many of the one are one of
the other."""


def owner_samples(status: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield an owner's metrics out of its state."""
    shard = {"shard": str(status["shard"])}
    yield "owner_live", "1 while the owner decides", shard, float(status["phase"] == "live")
    for key, (name, meaning, unit) in OWNER_METRICS.items():
        if status.get(key) is not None:
            yield name, meaning, shard, float(status[key]) / unit


def follower_samples(statuses: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    """Yield the followers' metrics out of their states."""
    for status in statuses:
        labels = {"sink": str(status["follower"]), "shard": str(status["shard"])}
        yield (
            "follower_lag_seconds",
            "age of the newest record written",
            labels,
            float(status["lag_ms"]) / 1000,
        )
        yield "follower_seq", "the newest decision written", labels, float(status["seq"])
        yield (
            "follower_failures_total",
            "writes and reads that were repeated",
            labels,
            float(status["failures"]),
        )
        yield (
            "follower_stopped",
            "1 when it stopped loudly",
            labels,
            float(bool(status["stopped_by"])),
        )
