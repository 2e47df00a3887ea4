"""A signal ends the server: what is cancelled, told, cleaned up and logged, for what ``test_ends.py`` has running.

One process of each server holds a connection of every row, and prints its journal. Work that is awaited (a thread, the
cleanup of an answered message) ends by SIGUSR1, once the clients of all other rows have been told: hypercorn waits for
that work before it tells its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest
from websockets.asyncio.client import connect

from tests.contract.servers import KINDS
from tests.contract.site import PATIENCE, closing_of
from tests.contract.test_ends import RUNNING
from tests.server.process import Running, process
from tests.support.raw import Close

APP: Final = "tests.contract.subjects.stops:app"
AWAITED: Final = [row for row, running in RUNNING.items() if running.interrupted == "finished"]
# These last: SIGUSR1 ends what the newest connection waits for.
ROWS: Final = [*(row for row in RUNNING if row not in AWAITED), *AWAITED]
BUSY: Final = ["async", "hook", "stream", "raw", "thread", "cleanup"]
"""Rows whose handler does not wait for a message."""
STAGED: Final = "telex-staged"
"""Telex's own runner; ``telex`` is uvicorn's with Telex's protocol."""


@dataclass(frozen=True)
class Stop:
    """How a server closes, and where a row differs."""

    close: Close
    cuts: tuple[str, ...] = ()
    """Rows whose work is cancelled although it is awaited elsewhere."""
    logged: str | None = ""
    """What the one record says; ``""`` where there is none, ``None`` where the server logs its own failures."""


RESTART: Final = Close(1012, "service restart")
STOPS: Final = {
    "uvicorn-websockets": Stop(Close(1012)),
    "uvicorn-wsproto": Stop(Close(1012)),
    "telex": Stop(Close(1012)),
    # It cancels the tasks of connections, in which the cleanup of a message runs; and cancels them again.
    "hypercorn": Stop(RESTART, cuts=("cleanup",), logged=None),
    STAGED: Stop(
        Close(1012, "retry-after=0.00"),
        # It cancels at the deadline what has not ended 0.1 s after the close, and threads cannot be cancelled.
        cuts=("cleanup",),
        logged=f"WARNING Draining: closing {len(BUSY)} WebSockets that are still busy",
    ),
}
if sys.version_info >= (3, 12):
    # asyncio's Server.wait_closed() waits until the clients have left, and hypercorn awaits it before it tells them.
    del STOPS["hypercorn"]
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
            pid = running.process.pid if isinstance(running, Running) else running.pid or 0
            os.kill(pid, signal.SIGTERM)
            closes = {row: await closing_of(client) for row, client in clients.items() if row not in AWAITED}
            if isinstance(running, Running):
                for row in STOPS[name].cuts:
                    await logged(running, f"{row}: cancelled")
            if name != "granian":  # its main process would die of this signal
                os.kill(pid, signal.SIGUSR1)
            closes |= {row: await closing_of(clients[row]) for row in AWAITED}
            if isinstance(running, Running):
                await asyncio.wait_for(running.process.wait(), PATIENCE)
        yield closes, running.last_log.splitlines()


async def logged(running: Running, line: str) -> None:
    """Wait until the process has printed ``line``."""
    async with asyncio.timeout(PATIENCE):
        while line not in running.log().splitlines():  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.02)


@pytest.mark.program
@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
async def test_a_signal_ends_it(name: str) -> None:
    stop = STOPS[name]
    async with stopped(name) as (closes, printed):
        assert closes == dict.fromkeys(ROWS, stop.close)
    for row in ROWS:
        notes = [line.removeprefix(f"{row}: ") for line in printed if line.startswith(f"{row}: ")]
        work = "cancelled" if row in stop.cuts else RUNNING[row].interrupted
        expected = ["begun", work, f"told {stop.close.code} {stop.close.reason}".strip(), "closed"]
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
    """Who waits for a message gets the end of the connection; a busy handler ends with the process.

    It may get the end of its connection before, or be in the middle of its cleanup when the process ends.
    """
    async with stopped("granian") as (closes, printed):
        assert set(closes.values()) == {Close(1006)}
    for row in BUSY:
        notes = [line.removeprefix(f"{row}: ").split()[0] for line in printed if line.startswith(f"{row}: ")]
        expected = ["begun", RUNNING[row].interrupted, *["told"] * RUNNING[row].hooks, "closed"]
        assert notes == expected[: max(1, len(notes))], (row, printed)
