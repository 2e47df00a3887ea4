"""A running server with the subjects on it, as one test sees it: connections to it, and what happens inside.

Every test begins with a control connection and a count of what the server holds, and ends with the same postcondition:
the control connection still echoes, nothing more is held, and nothing was logged that the test has not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.contract.servers import KINDS, Running, ServerKind
from tests.support.raw import Close, RawClient, Response

PATIENCE: Final = 20.0
"""Seconds that any one thing may take."""

COLLECT_AFTER: Final = 0.3

SUBJECTS: Final = "tests.contract.subjects.app:app"

ON_BOTH_PATHS: Final = pytest.mark.parametrize(
    "subjects",
    [kind for kind in KINDS if kind.name in {"uvicorn-websockets", "telex"}],
    ids=lambda kind: kind.name,
    indirect=True,
    scope="session",
)
"""For what no server has a part in: on one that only speaks ASGI, and on Telex's own, which may take a shorter way."""

SIGNS_OF_TROUBLE: Final = ("Exception ignored", "never awaited", "was destroyed", "panicked", "never retrieved")


@dataclass
class Site:
    """One server for one test."""

    kind: ServerKind
    running: Running
    control: ClientConnection
    probe: ClientConnection
    first_note: int = 0
    first_record: int = 0
    log_start: int = 0
    held: dict[str, Any] = field(default_factory=dict)

    # -- clients

    def connect(
        self,
        path: str,
        *,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] | None = None,
    ) -> connect:
        """A conforming client of another library, to be entered."""
        return connect(
            self.running.url(path),
            compression=None,
            ping_interval=None,
            proxy=None,
            max_size=None,
            max_queue=None,
            close_timeout=PATIENCE,
            open_timeout=PATIENCE,
            origin=None if origin is None else Origin(origin),
            additional_headers=dict(headers or {}),
            subprotocols=None if subprotocols is None else [Subprotocol(each) for each in subprotocols],
        )

    @contextlib.asynccontextmanager
    async def raw(self, path: str | None = None, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
        """A client that sends the test's bytes; with a ``path`` its handshake has succeeded."""
        async with await RawClient.open(self.running.port, timeout=PATIENCE, receive_buffer=receive_buffer) as client:
            if path is not None:
                response = await client.handshake(path)
                assert response.status == 101, response
            yield client

    async def handshake(
        self, path: str, headers: Iterable[tuple[str, str]] = (), *, without: Iterable[str] = ()
    ) -> Response:
        """The answer to one handshake, whose connection is then closed."""
        async with self.raw() as client:
            return await client.handshake(path, tuple(headers), without=without)

    # -- inside

    async def ask(self, *command: object) -> Any:
        """One answer of the probe (``subjects.journal.probe``)."""
        await self.probe.send(json.dumps(command))
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self.probe.recv())

    async def notes(self) -> list[str]:
        """What handlers have noted since the test began."""
        notes: list[str] = await self.ask("notes", self.first_note)
        return notes

    async def until(self, note: str, times: int = 1) -> None:
        """Wait until handlers have noted this so often since the test began."""
        try:
            await self.ask("until", note, times, self.first_note)
        except TimeoutError:
            raise AssertionError(f"{note!r} was not noted {times} times") from None

    async def records(self) -> list[tuple[str, str, str]]:
        """The log records from WARNING up since this was last asked, as level, logger, and text with traceback.

        What a server itself adds to denials (``NOISE``) is left out.
        """
        records = [tuple(each) for each in await self.ask("records", self.first_record)]
        self.first_record += len(records)
        noise = NOISE.get(self.kind.name, frozenset())
        return [record for record in records if record[2] not in noise]

    async def settled(self) -> None:
        """Wait until the server holds no more than when the test began.

        After a while the server collects its garbage first: granian closes a descriptor when the last object of its
        connection goes, and libraries (not Telex) may have put that into a reference cycle.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._is_within(held := await self.ask("held", loop.time() > began + COLLECT_AFTER)):
            assert loop.time() < began + PATIENCE, f"left behind: {held}\nbefore: {self.held}"
            await asyncio.sleep(0.005)

    def _is_within(self, held: dict[str, Any]) -> bool:
        return (
            len(held["tasks"]) <= len(self.held["tasks"])
            and held["descriptors"] <= self.held["descriptors"]
            and held["connections"] <= self.held["connections"]
        )

    # -- before and after

    async def begin(self) -> None:
        """Count what is there."""
        self.held, self.first_note, self.first_record = await self.ask("begin")
        self.log_start = len(self.running.log())

    async def check_postcondition(self) -> None:
        """Other connections were not affected by this test, and nothing of it is left."""
        await asyncio.wait_for(self.control.send("still here"), PATIENCE)
        assert await asyncio.wait_for(self.control.recv(), PATIENCE) == "still here"
        async with self.connect("/control") as fresh:
            await fresh.send("new here")
            assert await asyncio.wait_for(fresh.recv(), PATIENCE) == "new here"
        await self.settled()
        unread = [one for one in await self.records() if not one[2].startswith("refused: Origin ")]
        assert not unread, unread
        printed = self.running.log()[self.log_start :]
        assert not [sign for sign in SIGNS_OF_TROUBLE if sign in printed], printed


NOISE: Final[Mapping[str, frozenset[str]]] = {
    # logged for every denial response, which is sent nevertheless
    "uvicorn-websockets": frozenset({"ASGI callable returned without completing handshake."}),
}
"""What servers log without an error."""


@contextlib.asynccontextmanager
async def visited(kind: ServerKind, running: Running) -> AsyncIterator[Site]:
    """A server as one test sees it, with the postcondition at the end."""
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
    async with (
        connect(running.url("/control"), **options) as control,
        connect(running.url("/probe"), **options) as probe,
    ):
        site = Site(kind, running, control, probe)
        await site.begin()
        yield site
        await site.check_postcondition()


async def closing_of(client: ClientConnection) -> Close:
    """How a connection ends whose remaining messages do not matter; 1006 where no close frame came."""
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                await client.recv()
    except ConnectionClosed as closed:
        return Close(1006) if closed.rcvd is None else Close(closed.rcvd.code, closed.rcvd.reason)


async def said(client: ClientConnection, message: str | bytes) -> str | bytes:
    """The reply to a message."""
    await client.send(message)
    async with asyncio.timeout(PATIENCE):
        return await client.recv()
