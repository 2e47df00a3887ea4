"""What happens when a token expires: nothing new is taken, calls in work are finished, and the connection is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from telex import Authenticate, Channels, Identity, Provide, Telex, WebSocket, websocket, websocket_listener
from telex.auth import connection
from telex.channels.backends import MemoryBackend
from telex.event_reader import GRACE
from tests.auth.conftest import Skip, bearer, by_header
from tests.contract.servers import ServerKind
from tests.limits.kinds import PATHS, Journal, all_kinds, message
from tests.protocol.conftest import calling
from tests.support.live import asked, connected, ending, heard, serving, soon

EXPIRED = (4401, "the token has expired")
SOON = bearer("ada-1/5")
"""Expires after ``skip(LIFETIME)``."""
LIFETIME = 5.1


@pytest.mark.parametrize("path", PATHS)
async def test_every_kind_of_handler_is_closed_with_4401_and_ends(kind: ServerKind, path: str, skip: Skip) -> None:
    journal, hub = Journal(), Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    app = Telex(list(all_kinds(journal).values()), authenticate=by_header(), plugins=[hub])
    async with app.lifespan(), serving(app, kind) as running, connected(running, path, headers=SOON) as client:
        await client.send(message(path, "hi"))
        await journal.until(lambda: bool(journal.got))
        await skip(LIFETIME)
        assert await end_of(client) == EXPIRED
        await journal.until(lambda: journal.ends == [4401])
    assert len(app.connections) == 0


@pytest.mark.parametrize("path", [path for path in PATHS if path not in {"/own-class", "/raw"}])
async def test_every_kind_of_handler_is_closed_in_frames_too(kind: ServerKind, path: str, skip: Skip) -> None:
    journal, hub = Journal(), Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    app = Telex(list(all_kinds(journal).values()), authenticate=by_header(), plugins=[hub])
    async with (
        app.lifespan(),
        serving(app, kind) as running,
        connected(running, path, headers=SOON, subprotocols=["telex.v1"]) as client,
    ):
        await heard(client)
        await skip(LIFETIME)
        assert await end_of(client) == EXPIRED
        await skip(GRACE)
        await journal.until(lambda: journal.ends == [4401])
    assert len(app.connections) == 0


async def test_a_handler_that_works_in_plain_mode_is_cancelled_and_cleaned_up(kind: ServerKind, skip: Skip) -> None:
    journal = Journal()

    async def resource() -> AsyncGenerator[None, None]:
        yield
        journal.note("released")

    @websocket_listener("/", on_disconnect=lambda: journal.note("ended"))
    async def works(data: str, resource: None) -> str:
        journal.note("works")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            journal.note("cancelled")
        return data

    app = Telex([works], authenticate=by_header(), dependencies={"resource": Provide(resource)})
    async with serving(app, kind) as running, connected(running, headers=SOON) as client:
        await client.send("hi")
        await journal.until(lambda: journal.got == ["works"])
        await skip(LIFETIME)
        assert await ending(client) == EXPIRED
        await journal.until(lambda: journal.got == ["works", "cancelled", "ended", "released"])


async def test_hello_says_when_the_token_expires(kind: ServerKind) -> None:
    async def echo(data: str) -> str:
        return data

    app = Telex([websocket_listener("/")(echo)], authenticate=by_header())
    async with calling(app, "/", kind, headers=bearer("ada-1/3600")) as caller:
        assert 3500 < caller.hello["expires_in"] <= 3600
    async with calling(app, "/", kind, headers=bearer("ada-1")) as caller:
        assert "expires_in" not in caller.hello


async def end_of(client: ClientConnection) -> tuple[int, str]:
    """How a connection ends whose remaining messages do not matter."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await heard(client)
    return await ending(client)


class Gate:
    """A listener that waits until the test lets it answer."""

    def __init__(self) -> None:
        self.begun, self.released = asyncio.Event(), asyncio.Event()
        self.got: list[str] = []

    async def __call__(self, data: str) -> str:
        self.got.append(data)
        if data == "wait":
            self.begun.set()
            await self.released.wait()
        return data


@pytest.mark.parametrize("max_concurrency", [1, 4])
async def test_calls_in_work_are_answered_and_new_ones_refused(
    kind: ServerKind, max_concurrency: int, skip: Skip
) -> None:
    gate = Gate()
    listener = websocket_listener("/", max_concurrency=max_concurrency, max_calls=2)(gate.__call__)
    async with calling(Telex([listener], authenticate=by_header()), "/", kind, headers=SOON) as caller:
        taken = [await caller.begin("wait"), await caller.begin("wait")]
        await soon(gate.begun.wait())
        assert (await caller.call("early"))["error"]["code"] == "too_many_calls"
        await skip(LIFETIME)
        assert (await caller.call("late"))["error"]["code"] == "not_authorized"
        await caller.send({"type": "notify", "data": "late"})
        refused = await caller.receive()
        assert (refused["type"], refused["about"], refused["error"]["code"]) == ("error", "notify", "not_authorized")
        assert await caller.receive() == {"type": "credit", "n": 1}
        gate.released.set()
        assert [(await caller.receive())["id"] for _ in taken] == taken
        assert await ending(caller.client) == EXPIRED
    assert gate.got == ["wait", "wait"]


async def test_a_call_that_is_not_answered_in_time_is_cut(
    kind: ServerKind, skip: Skip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "GRACE", 0.2)
    gate = Gate()
    app = Telex([websocket_listener("/")(gate.__call__)], authenticate=by_header())
    async with calling(app, "/", kind, headers=SOON) as caller:
        await caller.begin("wait")
        await soon(gate.begun.wait())
        await skip(LIFETIME)
        assert await ending(caller.client) == EXPIRED


async def test_a_sync_listener_takes_nothing_after_the_expiry(kind: ServerKind, skip: Skip) -> None:
    """Its calls leave nothing in work: the connection is closed at once."""
    got: list[str] = []

    @websocket_listener("/")
    def listen(data: str) -> str:
        got.append(data)
        return data

    app = Telex([listen], authenticate=by_header())
    async with calling(app, "/", kind, headers=SOON) as caller:
        assert (await caller.call("hi"))["type"] == "reply"
        await skip(LIFETIME)
        assert await ending(caller.client) == EXPIRED
    assert got == ["hi"]


async def test_an_identity_that_expires_during_the_handshake_is_closed_at_once(kind: ServerKind) -> None:
    async def slow(socket: WebSocket) -> None:
        await asyncio.sleep(0.05)

    async def provider(token: str | None) -> Identity[str]:
        return Identity("ada", expires_in=0.01)

    async def echo(data: str) -> str:
        return data

    app = Telex([websocket_listener("/")(echo)], authenticate=Authenticate(provider, bearer=True), guards=[slow])
    async with serving(app, kind) as running, connected(running) as client:
        assert await ending(client) == EXPIRED


async def test_an_identity_without_an_end_stays(kind: ServerKind) -> None:
    @websocket("/")
    async def timers(socket: WebSocket) -> None:
        await socket.send_text(str(socket.authentication.hello if socket.authentication else None))
        await socket.receive_text()

    app = Telex([timers], authenticate=by_header())
    async with serving(app, kind) as running, connected(running, headers=bearer("ada-1")) as client:
        assert await soon(client.recv()) == "{}"
        await client.send("bye")
        assert (await ending(client))[0] == 1000


async def test_a_client_that_has_left_before_is_not_waited_for(kind: ServerKind) -> None:
    gate = Gate()
    app = Telex([websocket_listener("/")(gate.__call__)], authenticate=by_header())
    async with serving(app, kind) as running, connected(running, headers=bearer("ada-1/3600")) as client:
        assert await asked(client, "hi") == "hi"
    assert len(app.connections) == 0
