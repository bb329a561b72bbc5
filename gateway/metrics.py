"""What a monitor reads at ``/metrics``: prefix ``repricer_``, base units, no SKU and no retailer.

What the replica and the streams count anyway is read when somebody scrapes, not counted twice.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from actors.clock import Clock
from gateway.documents import STATE_NAMES
from gateway.feeds import Streams
from gateway.replica import Replica

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Observe = Callable[[int, float], None]
"""Takes the status of an answer and the seconds it took."""


class Metrics:
    """The metrics of one gateway process, in a registry of their own."""

    def __init__(self, replica: Replica, streams: Streams, clock: Clock) -> None:
        self._registry = CollectorRegistry()
        self._answers: dict[tuple[str, str], _Answers] = {}
        self._registry.register(_RequestMetrics(self._answers))
        self._registry.register(_ReplicaMetrics(replica, streams, clock))

    def observer(self, method: str, route: str) -> Observe:
        """Return what notes the answers of one route."""
        answers = self._answers.setdefault((method, route), _Answers())
        return answers.observe

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Answers:
    """How a route answered. Plain numbers: the library's counters take a lock and 2 us each."""

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, status: int, took_s: float) -> None:
        """Note one answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(_BUCKETS, took_s)] += 1
        self.seconds += took_s


class _RequestMetrics:
    """Reads what the routes counted, at each scrape."""

    def __init__(self, answers: Mapping[tuple[str, str], _Answers]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        """Yield the families; the name is the library's."""
        requests = CounterMetricFamily(
            "repricer_http_requests", "Requests answered", labels=("method", "route", "status")
        )
        seconds = HistogramMetricFamily(
            "repricer_http_request_seconds", "Time to answer", labels=("method", "route")
        )
        for (method, route), answers in self._answers.items():
            for status, count in sorted(answers.statuses.items()):
                requests.add_metric([method, route, str(status)], count)
            sums = [float(total) for total in accumulate(answers.buckets)]
            bounds = [*map(str, _BUCKETS), "+Inf"]
            seconds.add_metric(
                [method, route], list(zip(bounds, sums, strict=True)), answers.seconds
            )
        yield requests
        yield seconds


class _ReplicaMetrics:
    """Reads the replica and the streams at each scrape."""

    def __init__(self, replica: Replica, streams: Streams, clock: Clock) -> None:
        self._replica = replica
        self._streams = streams
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the families; the name is the library's."""
        replica, streams = self._replica, self._streams
        now_ms, monotonic_ms = self._clock.wall_ms(), self._clock.monotonic_ms()
        lag = GaugeMetricFamily(
            "repricer_replica_age_seconds",
            "Time since a record of the shard's decision log was heard",
            labels=("shard",),
        )
        seq = GaugeMetricFamily(
            "repricer_replica_seq", "Last decision read of the shard", labels=("shard",)
        )
        for number, view in enumerate(replica.shards):
            if view.read_ms:
                lag.add_metric([str(number)], view.age_ms(now_ms, monotonic_ms) / 1000)
            seq.add_metric([str(number)], view.position.seq)
        yield lag
        yield seq
        yield GaugeMetricFamily(
            "repricer_replica_listings", "Listings in memory", value=len(replica.listings)
        )
        quotes = CounterMetricFamily(
            "repricer_decisions", "Quotes read, by the state of the price", labels=("outcome",)
        )
        for state, count in sorted(replica.quotes_seen.items()):
            quotes.add_metric([STATE_NAMES[state]], count)
        yield quotes
        refused = CounterMetricFamily(
            "repricer_exceptions", "Deltas that changed nothing, by verdict", labels=("verdict",)
        )
        for verdict, count in sorted(replica.exceptions.items()):
            refused.add_metric([verdict], count)
        yield refused
        yield GaugeMetricFamily("repricer_stream_clients", "Open streams", value=streams.clients)
        cut = CounterMetricFamily("repricer_stream_cut", "Streams ended by us", labels=("reason",))
        for reason, count in sorted(streams.cut.items()):
            cut.add_metric([reason], count)
        yield cut
        yield CounterMetricFamily(
            "repricer_stream_frames", "Frames sent to streams", value=streams.frames_sent
        )
        yield CounterMetricFamily(
            "repricer_stream_frames_built",
            "Frames built; many share one",
            value=streams.frames_built,
        )
