"""A signal ends the server: what is cancelled, told, cleaned up and logged, for what ``test_ends.py`` has running.

One process of each server holds a connection of every row, and prints its journal. Work that is awaited (a thread, the
cleanup of an answered message) is left out: a server that stops waits for it only as long as it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from websockets.asyncio.client import connect

from tests.contract.servers import KINDS
from tests.contract.site import PATIENCE, closing_of
from tests.contract.test_ends import RUNNING
from tests.server.process import Running, process
from tests.support.raw import Close

APP: Final = "tests.contract.subjects.stops:app"
ROWS: Final = [row for row, running in RUNNING.items() if running.interrupted != "finished"]
BUSY: Final = ["async", "hook", "stream", "raw"]
"""Rows whose handler does not wait for a message."""
STAGED: Final = "telex-staged"
"""Telex's own runner; ``telex`` is uvicorn's with Telex's protocol."""


@dataclass(frozen=True)
class Stop:
    """How a server closes, and where a row differs: on the wire, and in what ``on_disconnect`` is told."""

    close: Close
    wire: dict[str, Close] = field(default_factory=dict)
    told: dict[str, Close] = field(default_factory=dict)
    logged: str | None = ""
    """What the one record says; ``""`` where there is none, ``None`` where the server logs its own failures."""


RESTART: Final = Close(1012, "service restart")
STOPS: Final = {
    "uvicorn-websockets": Stop(Close(1012)),
    "uvicorn-wsproto": Stop(Close(1012)),
    "telex": Stop(Close(1012)),
    # It cancels the tasks of connections.
    "hypercorn": Stop(RESTART, logged=None),
    # Busy handlers are cancelled at ``drain_timeout``: their hooks are told Telex's own close, the client the server's.
    STAGED: Stop(
        Close(1012, "retry-after=0.00"),
        told=dict.fromkeys(BUSY, RESTART),
        logged=f"WARNING Draining: closing {len(BUSY)} WebSockets that are still busy",
    ),
}
SERVERS: Final = [pytest.param(name, marks=[pytest.mark.peer] if name == "hypercorn" else []) for name in STOPS]


@contextlib.asynccontextmanager
async def stopped(name: str) -> AsyncIterator[tuple[dict[str, Close], list[str]]]:
    """How each row's connection closed when the server got SIGTERM, and what the process printed."""
    kinds = {kind.name: kind for kind in KINDS}
    server = kinds[name].process(APP) if name in kinds else process(APP, drain_interval=0.05, drain_timeout=0.5)
    async with contextlib.AsyncExitStack() as stack:
        async with server as running:
            url = f"ws://127.0.0.1:{running.port}"
            clients = {}
            for row in ROWS:
                client = await stack.enter_async_context(
                    connect(f"{url}/ends/{row}", compression=None, ping_interval=None, proxy=None)
                )
                if RUNNING[row].asked:
                    await client.send("go")
                clients[row] = client
            async with connect(f"{url}/probe", proxy=None) as probe:
                await probe.send(json.dumps(["until", "begun", len(ROWS), 0]))
                await asyncio.wait_for(probe.recv(), PATIENCE)
            # Clients answer a close frame only while this loop runs, and the end of ``server`` blocks it.
            os.kill(running.process.pid if isinstance(running, Running) else running.pid or 0, signal.SIGTERM)
            closes = {row: await closing_of(client) for row, client in clients.items()}
            if isinstance(running, Running):
                await asyncio.wait_for(running.process.wait(), PATIENCE)
        yield closes, running.last_log.splitlines()


@pytest.mark.program
@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
async def test_a_signal_ends_it(name: str) -> None:
    stop = STOPS[name]
    async with stopped(name) as (closes, printed):
        assert closes == {row: stop.wire.get(row, stop.close) for row in ROWS}
    for row in ROWS:
        notes = [line.removeprefix(f"{row}: ") for line in printed if line.startswith(f"{row}: ")]
        told = stop.told.get(row, stop.close)
        expected = ["begun", RUNNING[row].interrupted, f"told {told.code} {told.reason}".strip(), "closed"]
        if not RUNNING[row].hooks:
            del expected[2]
        assert notes == [note for note in expected if note is not None], (row, printed)
    if stop.logged is not None:
        assert [line.removeprefix(": ") for line in printed if line.startswith(": ")] == [stop.logged][
            : len(stop.logged)
        ]


@pytest.mark.peer
@pytest.mark.program
@pytest.mark.slow
async def test_granian_ends_its_process_without_busy_connections() -> None:
    """Who waits for a message gets the end of the connection; a busy handler ends with the process, unnoticed."""
    async with stopped("granian") as (closes, printed):
        assert set(closes.values()) == {Close(1006)}
    for row in BUSY:
        assert [line for line in printed if line.startswith(f"{row}: ")] == [f"{row}: begun"]
