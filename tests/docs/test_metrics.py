"""The page on metrics: its examples run, and its table has every metric with its labels."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from websockets.asyncio.client import connect

from examples.docs import metrics as one_process
from examples.docs import metrics_otel, metrics_workers
from telex.telemetry.families import DURATIONS, FAMILIES
from tests.contract.servers import ServerKind
from tests.docs.pages import table

SERVER = ServerKind("telex")


async def exposed(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return (await client.get(url)).text


def test_the_table_has_every_metric_and_its_labels() -> None:
    written: dict[str, set[str]] = {}
    for names, labels, *_ in table("how-to/metrics.md", "What each metric means"):
        for name in re.findall(r"telex\.[\w.]+", names):
            written[name] = set(re.findall(r"\w+", labels.replace("–", "")))
    there = {family.name: set(family.labels) for family in FAMILIES}
    assert written == there | {name: set(duration.labels) for name, duration in DURATIONS.items()}


async def test_one_process() -> None:
    async with SERVER.loop(one_process.app) as server, connect(server.url("/rooms/tea"), proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "tea: hello"
        shown = await exposed(f"http://127.0.0.1:{server.port}/metrics")
        sample = 'telex_messages_total{direction="in",outcome="ok",route="/rooms/{room:str}",type="str"} 1.0'
        assert sample in shown


@pytest.mark.long
async def test_a_port_for_each_worker() -> None:
    async with SERVER.loop(metrics_workers.app):
        found = [await _answer(port) for port in metrics_workers.PORTS]
        assert any("telex_server_active_connections" in text for text in found)


async def _answer(port: int) -> str:
    try:
        return await exposed(f"http://127.0.0.1:{port}/metrics")
    except httpx.HTTPError:
        return ""


async def test_opentelemetry() -> None:
    app = metrics_otel.make()
    try:
        async with SERVER.loop(app) as server, connect(server.url("/rooms/tea"), proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "tea: hello"
            assert app.counts is not None
            assert app.counts.routes[0].received == 1
    finally:
        provider = metrics.get_meter_provider()
        assert isinstance(provider, MeterProvider)
        await asyncio.to_thread(provider.shutdown)
