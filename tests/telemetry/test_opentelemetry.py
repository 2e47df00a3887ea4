"""OpenTelemetry's SDK reads what the app counts."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect

from telex import Channels, Plugin, Telex, websocket_listener
from telex.telemetry.families import DURATIONS, FAMILIES
from telex.telemetry.opentelemetry import OpenTelemetry
from telex.telemetry.prometheus import Prometheus
from tests.channels.conftest import until
from tests.contract.servers import ServerKind


@websocket_listener("/rooms/{room:str}")
def echo(data: str, room: str) -> str:
    return data


def read(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The data of each metric by its name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    scopes = (scope for resource in data.resource_metrics for scope in resource.scope_metrics)
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def points(metric: Any) -> dict[tuple[str, ...], Any]:
    """The points by the values of their attributes."""
    return {tuple((point.attributes or {}).values()): point for point in metric.data.data_points}


async def test_the_sdk_reads_the_same_numbers_as_prometheus() -> None:
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    provider = MeterProvider([reader])
    plugins: list[Plugin] = [
        OpenTelemetry(meter_provider=provider, handle_duration=True),
        Prometheus(registry=registry),
        Channels("memory://", channels=["news"]),
    ]
    app = Telex([echo], plugins=plugins)
    async with ServerKind("telex").loop(app) as server:
        async with connect(server.url("/rooms/secret"), proxy=None, open_timeout=20) as client:
            for _ in range(3):
                await client.send("hello")
                await client.recv()
            shown = read(reader)
        route = "/rooms/{room:str}"
        assert points(shown["telex.messages"])[route, "in", "str", "ok"].value == 3
        assert points(shown["telex.server.active_connections"])[route,].value == 1
        assert points(shown["telex.message.handle.duration"])[route,].count == 3
        assert shown["telex.message.handle.duration"].unit == "s"
        labels = {"route": route, "direction": "in", "type": "str", "outcome": "ok"}
        assert registry.get_sample_value("telex_messages_total", labels) == 3
        await until(lambda: len(app.connections) == 0)
        await until(lambda: "telex.server.connection.duration" in read(reader))
        duration = points(read(reader)["telex.server.connection.duration"])
        assert duration[route, "1000", "normal"].count == 1
        # Every metric is there, except of what never happened: a ping, a refusal, a key that was forgotten.
        unseen = {"telex.ping.rtt", "telex.rate_limited"}
        assert {family.name for family in FAMILIES} | set(DURATIONS) == set(read(reader)) | unseen
    assert read(reader).get("telex.messages") is None
    provider.shutdown()


def test_names_are_those_of_opentelemetrys_conventions() -> None:
    for family in FAMILIES:
        assert family.name.startswith("telex.")
        assert family.name.replace(".", "").replace("_", "").islower()
        assert family.unit in {"", "s", "By"}
        assert family.help.endswith(".")
