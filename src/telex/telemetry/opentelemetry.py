"""Shows what an app counts through OpenTelemetry's metrics API."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

from telex.telemetry.counts import AppCounts, process
from telex.telemetry.families import DURATIONS, FAMILIES, CountedApp, CountingConfig, Family, Reading, count

__all__ = ("OpenTelemetry",)

READ_FOR: Final = 0.5
"""Seconds for which one reading of the app serves the callbacks of all instruments."""


class OpenTelemetry:
    """A plugin: shows the metrics of an app through OpenTelemetry.

    Counters and gauges are observable instruments, which the SDK reads when it exports. ``meter_provider`` is the
    global one by default; without an SDK the API does nothing. ``handle_duration`` adds a histogram of the time that
    handlers take, which costs every message two readings of the clock.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None, handle_duration: bool = False) -> None:
        self._meter_provider = meter_provider
        self._handle_duration = handle_duration

    def on_app_init(self, config: CountingConfig) -> None:
        """Let the app count."""
        counts = count(config)
        counts.measures_handling = counts.measures_handling or self._handle_duration
        source = _Observed(counts)
        meter = get_meter("telex", meter_provider=self._meter_provider)
        observe = _create_instruments(meter, source)
        counts.observers.append(observe)

        @asynccontextmanager
        async def observed(app: CountedApp) -> AsyncGenerator[None, None]:
            source.app = app
            process.observers.append(observe)
            try:
                yield
            finally:
                process.observers.remove(observe)
                source.app = None

        config.lifespan.append(observed)


class _Observed:
    """Reads what one app counts, when the SDK asks."""

    def __init__(self, counts: AppCounts) -> None:
        self._counts = counts
        self._reading: Reading | None = None
        self.app: CountedApp | None = None

    def observations(self, family: Family) -> list[Observation]:
        """The numbers of one instrument."""
        if self.app is None:
            self._reading = None
            return []
        if self._reading is None or time.monotonic() - self._reading.at > READ_FOR:
            self._reading = Reading(self.app, self._counts)
        rows = family.read(self._reading).items()
        return [Observation(value, dict(zip(family.labels, labels, strict=True))) for labels, value in rows]


def _create_instruments(meter: Meter, source: _Observed) -> Callable[[str, float, dict[str, str]], None]:
    """Create all instruments; returns the function that records a duration."""
    for family in FAMILIES:
        create = meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
        create(family.name, [_callback(source, family)], unit=family.unit, description=family.help)
    histograms = {
        name: meter.create_histogram(
            name, unit="s", description=duration.help, explicit_bucket_boundaries_advisory=duration.buckets
        )
        for name, duration in DURATIONS.items()
    }

    def observe(name: str, seconds: float, labels: dict[str, str]) -> None:
        histograms[name].record(seconds, labels)

    return observe


def _callback(source: _Observed, family: Family) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: source.observations(family)
