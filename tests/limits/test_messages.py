"""Limits of messages over real sockets: each kind of handler, on a server with a fast path and on one without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from telex import (
    Channels,
    ImproperlyConfiguredException,
    Router,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.channels import MemoryBackend
from telex.limits import Limit
from telex.server import closing
from tests.channels.conftest import until
from tests.contract.servers import ServerKind
from tests.limits.kinds import PATHS, THREE, Journal, all_kinds, message
from tests.support.leaks import no_leaks
from tests.support.live import asked, connected, ending, heard, serving, soon


async def visiting(
    kind: ServerKind,
    path: str,
    options: Any,
    visit: Callable[[ClientConnection, Journal], Awaitable[None]],
) -> Journal:
    """Serve all kinds of handler with ``options`` on the app's layer, and visit one of them."""
    journal, hub = Journal(), Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    app = Telex([all_kinds(journal)[path]], plugins=[hub], **options)
    async with app.lifespan(), serving(app, kind) as running, connected(running, path) as client:
        await visit(client, journal)
    return journal


@pytest.mark.parametrize("path", PATHS)
async def test_messages_wait_and_none_is_lost(kind: ServerKind, path: str) -> None:
    async def visit(client: ClientConnection, journal: Journal) -> None:
        start = asyncio.get_running_loop().time()
        for number in range(40):
            await client.send(message(path, str(number)))
        answers = [str(await heard(client)).replace('":"', '": "') for _ in range(40)]
        assert answers == [message(path, str(number)) for number in range(40)]
        assert asyncio.get_running_loop().time() - start >= 30 / 100 - 0.01
        assert journal.got == [str(number) for number in range(40)]

    await visiting(kind, path, {"message_limit": Limit(100, burst=10)}, visit)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_is_noticed_while_a_message_waits(kind: ServerKind, path: str, how: str) -> None:
    async def visit(client: ClientConnection, journal: Journal) -> None:
        for number in range(6):
            await client.send(message(path, str(number)))
        await journal.until(lambda: len(journal.got) == 3)
        if how == "close":
            await soon(client.close(4001))
        else:
            client.transport.abort()
        await journal.until(lambda: bool(journal.ends))

    async with no_leaks():
        journal = await visiting(kind, path, THREE, visit)
    assert journal.got == ["0", "1", "2"]
    assert journal.ends in ([[4001]] if how == "close" else [[1005], [1006]])  # servers differ on a reset


@pytest.mark.parametrize("path", PATHS)
async def test_a_connection_whose_message_waits_is_idle(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Telex's server a close frame is answered at once, and a drain closes the connection as one without work."""
    monkeypatch.setattr(closing, "GRACE", 3600)
    journal, hub = Journal(), Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    app = Telex([all_kinds(journal)[path]], plugins=[hub], **THREE)
    async with app.lifespan(), serving(app, ServerKind("telex")) as running, connected(running, path) as client:
        for number in range(6):
            await client.send(message(path, str(number)))
        await journal.until(lambda: len(journal.got) == 3)
        (socket,) = app.connections
        await until(lambda: not (socket.scope["extensions"].get("telex.transport") or _Idle).busy)
        await soon(client.close(4001))
        await journal.until(lambda: bool(journal.ends))
    assert journal.ends == [4001]


class _Idle:
    """What a connection behind middleware has in place of a transport."""

    busy = False


@pytest.mark.parametrize("path", PATHS)
async def test_the_app_closes_while_a_message_waits(kind: ServerKind, path: str) -> None:
    journal, hub = Journal(), Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    app = Telex([all_kinds(journal)[path]], plugins=[hub], **THREE)
    async with app.lifespan(), serving(app, kind) as running, no_leaks(), connected(running, path) as client:
        for number in range(6):
            await client.send(message(path, str(number)))
        for _ in range(3):
            await heard(client)
        await journal.until(lambda: len(journal.got) == 3)
        await soon(app.connections.drain())
        assert (await ending(client))[0] == 1012
        await journal.until(lambda: bool(journal.ends))
    assert journal.got == ["0", "1", "2"]


@pytest.mark.parametrize("path", PATHS)
async def test_close_closes_with_4429(kind: ServerKind, path: str) -> None:
    async def visit(client: ClientConnection, journal: Journal) -> None:
        for number in range(3):
            await asked(client, message(path, str(number)))
        for number in range(3, 6):
            await client.send(message(path, str(number)))
        code, reason = await ending(client)
        assert code == 4429
        assert 3590 < float(reason.removeprefix("retry-after=")) <= 3600.1
        await journal.until(lambda: bool(journal.ends))

    limit = Limit(1, per=3600, burst=3, on_exceed="close")
    async with no_leaks():
        journal = await visiting(kind, path, {"message_limit": limit}, visit)
    assert journal.got == ["0", "1", "2"]
    assert journal.ends == [4429]


@pytest.mark.parametrize("path", PATHS)
async def test_reply_answers_and_drops(kind: ServerKind, path: str) -> None:
    async def visit(client: ClientConnection, journal: Journal) -> None:
        for number in range(5):
            await client.send(message(path, str(number)))
        answers = [json.loads(await heard(client)) for _ in range(5)]
        refusals = [each for each in answers if isinstance(each, dict) and "error" in each]
        assert len(refusals) == 2
        for refusal in refusals:
            assert 3590 < refusal["error"].pop("retry_after") <= 3600.1
            assert refusal == {
                "type": "error",
                "error": {"code": "rate_limited", "message": "at most 1 in 3600 s (at once 3)"},
            }
        assert journal.got == ["0", "1", "2"]

    await visiting(kind, path, {"message_limit": Limit(1, per=3600, burst=3, on_exceed="reply")}, visit)


async def test_bytes_are_counted_as_they_are_on_the_wire(kind: ServerKind) -> None:
    @websocket_listener("/", byte_limit=Limit(1, per=3600, burst=10, on_exceed="reply"))
    def echo(data: str) -> str:
        return data

    async with serving(Telex([echo]), kind) as running, connected(running) as client:
        assert await asked(client, "→→→") == "→→→"  # nine bytes
        assert json.loads(await asked(client, "é"))["error"]["code"] == "rate_limited"
        assert await asked(client, "e") == "e"
    async with serving(Telex([echo]), kind) as running, connected(running) as client:
        long = "a" * 1_000  # longer than the burst: it delays what follows
        assert await asked(client, long) == long
        refused = json.loads(await asked(client, "a"))
        assert refused["error"]["retry_after"] > 3600 * 980


async def test_both_limits_hold_and_a_refused_message_costs_nothing(kind: ServerKind) -> None:
    @websocket_listener(
        "/",
        message_limit=Limit(1, per=3600, burst=2),
        byte_limit=Limit(1, per=3600, burst=10, on_exceed="reply"),
    )
    async def echo(data: str) -> str:
        return data

    async with serving(Telex([echo]), kind) as running, connected(running) as client:
        assert await asked(client, "12345") == "12345"
        for _ in range(5):
            assert json.loads(await asked(client, "123456"))["error"]["code"] == "rate_limited"
        assert await asked(client, "12345") == "12345"


async def test_the_nearest_layer_counts_and_none_lifts_it(kind: ServerKind) -> None:
    def echo(data: str) -> str:
        return data

    refusing = Limit(1, per=3600, burst=1, on_exceed="reply")
    app = Telex(
        [
            websocket_listener("/app")(echo),
            websocket_listener("/free", message_limit=None)(echo),
            Router("/router", route_handlers=[websocket_listener("/")(echo)], message_limit=Limit(1_000)),
        ],
        message_limit=refusing,
    )
    async with serving(app, kind) as running:
        for path, free in (("/app", False), ("/free", True), ("/router", True)):
            async with connected(running, path) as client:
                answers = [await asked(client, "hi") for _ in range(3)]
                assert (answers == ["hi"] * 3) is free


async def test_each_connection_is_counted_by_itself(kind: ServerKind) -> None:
    @websocket_listener("/", message_limit=Limit(1, per=3600, burst=1, on_exceed="reply"))
    def echo(data: str) -> str:
        return data

    async with serving(Telex([echo]), kind) as running:
        for _ in range(3):
            async with connected(running) as client:
                assert await asked(client, "hi") == "hi"


async def test_a_stream_that_discards_is_limited_too(kind: ServerKind) -> None:
    ended = asyncio.Event()

    @websocket_stream("/", allow_data_discard=True, message_limit=Limit(1, per=3600, burst=3, on_exceed="close"))
    async def stream() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(Telex([stream]), kind) as running, connected(running) as client:
        assert await heard(client) == "first"
        for _ in range(4):
            await client.send("x")
        assert (await ending(client))[0] == 4429
        await soon(ended.wait())


async def test_a_busy_handler_learns_of_the_close_that_a_flood_causes(kind: ServerKind) -> None:
    interrupted = asyncio.Event()

    @websocket_listener("/", message_limit=Limit(1, per=3600, burst=3, on_exceed="close"))
    async def work(data: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()

    async with serving(Telex([work]), kind) as running, connected(running) as client:
        for _ in range(5):
            await client.send("x")
        assert (await ending(client))[0] == 4429
        await soon(interrupted.wait())


@pytest.mark.parametrize("form", ["listener", "raw", "two at once"])
async def test_order_is_kept_where_messages_are_read_ahead_and_wait(kind: ServerKind, form: str) -> None:
    async def work(data: str) -> str:
        await asyncio.sleep(0.06 if int(data) % 5 == 0 else 0)  # longer than it takes to begin to read ahead
        return data

    @websocket("/")
    async def raw(socket: WebSocket) -> None:
        async for data in socket.iter_text():
            await socket.send_text(await work(data))

    listener = websocket_listener("/", max_concurrency=2 if form == "two at once" else 1)(work)
    app = Telex([raw if form == "raw" else listener], message_limit=Limit(100, burst=10))
    async with serving(app, kind) as running, connected(running) as client:
        for number in range(30):
            await client.send(str(number))
        answers = [int(await heard(client)) for _ in range(30)]
    assert (sorted(answers) if form == "two at once" else answers) == list(range(30))


async def test_a_busy_handler_is_interrupted_while_a_message_waits(kind: ServerKind) -> None:
    interrupted = asyncio.Event()

    @websocket_listener("/", **THREE)
    async def work(data: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()

    async with no_leaks(), serving(Telex([work]), kind) as running, connected(running) as client:
        for _ in range(6):
            await client.send("x")
        await soon(client.close())
        await soon(interrupted.wait())


async def test_a_message_that_waits_survives_a_cancelled_receive(kind: ServerKind) -> None:
    @websocket("/", message_limit=Limit(20, burst=1))
    async def impatient(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            try:
                async with asyncio.timeout(0.01):
                    data = await socket.receive_text()
            except TimeoutError:
                continue
            await socket.send_text(data)

    async with serving(Telex([impatient]), kind) as running, connected(running) as client:
        for number in range(5):
            await client.send(str(number))
        assert [await heard(client) for _ in range(5)] == ["0", "1", "2", "3", "4"]


@pytest.mark.long
async def test_waiting_pushes_back_through_tcp(kind: ServerKind) -> None:
    """A client that floods stops being read: memory on the server stays bounded, and its own sends block."""
    journal = Journal()

    @websocket_listener("/", message_limit=Limit(2, burst=3))
    async def take(data: str) -> None:
        journal.note(len(data))

    async with serving(Telex([take]), kind) as running, connected(running, compression=None) as client:
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while sent < 400:
                    await client.send("x" * 500_000)
                    sent += 1
        assert 3 <= len(journal.got) < sent < 100
        client.transport.abort()


async def test_an_excess_is_logged_once(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    @websocket_listener("/", message_limit=Limit(1, per=3600, burst=1, on_exceed="reply"))
    async def echo(data: str) -> str:
        return data

    with caplog.at_level(logging.INFO, "telex"):
        async with serving(Telex([echo]), kind) as running, connected(running) as client:
            for _ in range(4):
                await asked(client, "x")
    lines = [each.getMessage() for each in caplog.records if "exceeds" in each.getMessage()]
    assert len(lines) == 1
    assert "echo" in lines[0]
    assert "test_messages.py" in lines[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"message_limit": 50}, r"is Limit\(50, per=1\), or None, not 50"),
        ({"message_limit": Limit(5, key=id)}, "key= and store= have no effect: remove them, or limit the handshakes"),
        (
            {"byte_limit": Limit(5, store="redis://localhost", on_store_failure="open")},
            "key= and store= have no effect",
        ),
    ],
)
def test_a_limit_that_cannot_apply_is_an_error(options: Any, says: str) -> None:
    def listen(data: str) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=rf"listen.*test_messages\.py.*{says}"):
        websocket_listener("/", **options)(listen)
    with pytest.raises(ImproperlyConfiguredException, match=rf"Telex\(\.\.\.\): .*{says}"):
        Telex([], **options)


def test_a_stream_that_reads_nothing_takes_no_limit() -> None:
    @websocket_stream("/", listen_for_disconnect=False, message_limit=Limit(5))
    async def stream() -> AsyncGenerator[str, None]:
        yield "x"

    with pytest.raises(ImproperlyConfiguredException, match=r"stream.*message_limit= has no effect: .* reads nothing"):
        Telex([stream])


async def test_without_limits_nothing_stands_between_reader_and_server() -> None:
    seen: list[WebSocket] = []

    @websocket_listener("/")
    async def plain(data: str) -> None: ...

    app = Telex([plain])
    async with serving(app, ServerKind("telex")) as running, connected(running) as client:
        await asyncio.wait_for(client.ping(), 9)
        seen.extend(app.connections)
        assert seen[0].event_reader.limiter is None
        assert type(seen[0].transport).__module__.startswith("telex.server")
