"""Shows what an app counts to Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import REGISTRY, Collector
from starlette.responses import PlainTextResponse, Response

from telex.telemetry.counts import AppCounts, process
from telex.telemetry.families import DURATIONS, FAMILIES, CountedApp, CountingConfig, Duration, Family, Reading, count
from telex.types import Receive, Scope, Send

__all__ = ("Prometheus",)

_UNITS: Final = {"s": "_seconds", "By": ""}


class Prometheus:
    """A plugin: shows the metrics of an app to Prometheus.

    ``path`` answers ``GET`` with all metrics of ``registry``; it is public unless a proxy guards it. With ``path=None``
    the app adds its metrics to the registry alone, for ``prometheus_client.start_http_server(9000)`` on a port of its
    own. The metrics are in the registry while the app's lifespan runs.

    ``handle_duration`` adds a histogram of the time that handlers take, which costs every message two readings of the
    clock.
    """

    def __init__(
        self,
        path: str | None = "/metrics",
        *,
        registry: CollectorRegistry = REGISTRY,
        handle_duration: bool = False,
    ) -> None:
        self._path = path
        self._registry = registry
        self._handle_duration = handle_duration

    def on_app_init(self, config: CountingConfig) -> None:
        """Let the app count, and add ``path`` to it."""
        counts = count(config)
        counts.measures_handling = counts.measures_handling or self._handle_duration
        collector = _Collector(counts)
        counts.observers.append(collector.observe)
        if self._path is not None:
            config.http_routes[self._path] = self._serve

        @asynccontextmanager
        async def registered(app: CountedApp) -> AsyncGenerator[None, None]:
            collector.app = app
            process.observers.append(collector.observe)
            self._registry.register(collector)
            try:
                yield
            finally:
                self._registry.unregister(collector)
                process.observers.remove(collector.observe)
                collector.app = None

        config.lifespan.append(registered)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in {"GET", "HEAD"}:
            response = Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})
        else:
            response = PlainTextResponse("GET or HEAD\n", 405, headers={"allow": "GET, HEAD"})
        await response(scope, receive, send)


class _Collector(Collector):
    """Reads what one app counts, when Prometheus asks."""

    def __init__(self, counts: AppCounts) -> None:
        self._counts = counts
        self._histograms = {name: _Histogram(duration) for name, duration in DURATIONS.items()}
        self.app: CountedApp | None = None

    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        """Add one duration to its histogram."""
        self._histograms[name].add(labels, seconds)

    def describe(self) -> list[Metric]:
        """Nothing: the registry then does not read the app when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric of the app."""
        if self.app is None:
            return
        reading = Reading(self.app, self._counts)
        for family in FAMILIES:
            yield _metric(family, reading)
        for name, histogram in self._histograms.items():
            yield histogram.metric(_name(name, "s"))


def _name(name: str, unit: str = "") -> str:
    return name.replace(".", "_") + _UNITS.get(unit, "")


def _metric(family: Family, reading: Reading) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(_name(family.name, family.unit), family.help, labels=family.labels)
    for labels, value in family.read(reading).items():
        metric.add_metric(labels, value)
    return metric


class _Histogram:
    """The buckets of one duration, for each set of labels."""

    def __init__(self, duration: Duration) -> None:
        self._duration = duration
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, given: dict[str, str], seconds: float) -> None:
        """Count one measurement."""
        buckets, labels = self._duration.buckets, tuple(given[label] for label in self._duration.labels)
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(buckets, seconds)] += 1
        self._sums[labels] += seconds

    def metric(self, name: str) -> Metric:
        """The histogram as Prometheus shows it: each bucket includes those below it."""
        metric = HistogramMetricFamily(name, self._duration.help, labels=self._duration.labels)
        bounds = [*map(str, self._duration.buckets), "+Inf"]
        for labels, counts in self._counts.items():
            metric.add_metric(labels, _cumulated(bounds, counts), self._sums[labels])
        return metric


def _cumulated(bounds: Sequence[str], counts: Sequence[int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, number in zip(bounds, counts, strict=True):
        total += number
        found.append((bound, float(total)))
    return found
