"""The app raises, does not end or ends early: the test gets one error, immediately."""

from __future__ import annotations

import asyncio
import time

import pytest

from telex.exceptions import WebSocketDisconnect
from telex.testing import AsyncTestClient
from telex.testing.lifespan import AppLifespan
from telex.types import Receive, Scope, Send

from .apps import ACCEPT, cancels_itself, echo, fails_with, says, stubborn, until_disconnect, websocket_app

TEXT = {"type": "websocket.send", "text": "a"}


async def test_messages_sent_before_an_exception_are_received_before_it() -> None:
    client = AsyncTestClient(fails_with(LookupError("boom"), dict(ACCEPT), TEXT))
    async with client, client.websocket_connect("/") as session:
        await session.expect("a")
        for _ in range(2):
            with pytest.raises(LookupError, match="boom"):
                await session.receive_text()


async def test_an_exception_that_no_receive_raised_is_raised_by_the_end_of_the_session() -> None:
    async with AsyncTestClient(fails_with(LookupError("boom"), dict(ACCEPT), TEXT)) as client:
        with pytest.raises(LookupError, match="boom"):
            async with client.websocket_connect("/"):
                pass


async def test_an_exception_after_the_disconnect_is_raised() -> None:
    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await until_disconnect(receive)
        raise LookupError("in the clean-up")

    async with AsyncTestClient(websocket_app(conversation)) as client:
        with pytest.raises(LookupError, match="in the clean-up"):
            async with client.websocket_connect("/"):
                pass


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_system_exit_of_the_app_does_not_end_the_loop(error: BaseException) -> None:
    async with AsyncTestClient(fails_with(error, dict(ACCEPT))) as client, client.websocket_connect("/") as session:
        with pytest.raises(type(error)):
            await session.receive()


async def test_an_exception_of_the_test_takes_precedence() -> None:
    async with AsyncTestClient(fails_with(LookupError("boom"), dict(ACCEPT), TEXT)) as client:
        with pytest.raises(AssertionError, match="expected text 'b'") as caught:
            async with client.websocket_connect("/") as session:
                await session.expect("b")
    [note] = caught.value.__notes__
    assert note.startswith("The app failed too:\nTraceback")
    assert "LookupError: boom" in note


async def test_the_exception_of_the_test_is_not_its_own_note() -> None:
    async with AsyncTestClient(stubborn, timeout=0.05) as client:
        with pytest.raises(ZeroDivisionError) as caught:
            async with client.websocket_connect("/"):
                raise ZeroDivisionError
    [note] = caught.value.__notes__
    assert "did not end after the disconnect" in note
    assert "ZeroDivisionError" not in note


async def test_an_exception_of_the_test_alone_gets_no_note() -> None:
    async with AsyncTestClient(says("a")) as client:
        with pytest.raises(AssertionError) as caught:
            async with client.websocket_connect("/") as session:
                await session.expect("b")
    assert not hasattr(caught.value, "__notes__")


async def test_without_raise_server_exceptions_an_exception_is_a_lost_connection() -> None:
    client = AsyncTestClient(fails_with(LookupError("boom"), dict(ACCEPT)), raise_server_exceptions=False)
    async with client, client.websocket_connect("/") as session:
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive()
    assert (caught.value.code, caught.value.reason) == (1006, "the app failed")


async def test_an_app_that_ends_without_a_close_ends_the_waits() -> None:
    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await receive()

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        waiting = asyncio.create_task(session.receive())
        await session.send_text("end")
        with pytest.raises(WebSocketDisconnect) as caught:
            await waiting
        assert (caught.value.code, caught.value.reason) == (1006, "the app ended without a close")
        with pytest.raises(WebSocketDisconnect):
            await session.send_text("too late")


async def test_an_app_that_does_not_end_is_cancelled_and_named() -> None:
    async with AsyncTestClient(stubborn) as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"websocket_app.* did not end .* within 0\.05 s; it waits in _stubborn"):
            async with client.websocket_connect("/", timeout=0.05):
                pass
        assert time.monotonic() - started < 5


async def test_the_error_names_an_app_that_receives_after_the_disconnect() -> None:
    async def greedy(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        while True:
            await receive()

    async with AsyncTestClient(websocket_app(greedy), timeout=0.05) as client:
        with pytest.raises(TimeoutError, match=r"it waits in .*greedy"):
            async with client.websocket_connect("/"):
                pass


async def test_an_app_that_ignores_its_cancellation_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telex.testing.tasks.GRACE", 0.05)
    freed = asyncio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                continue

    async with AsyncTestClient(websocket_app(deaf), timeout=0.05) as client:
        session = await client.websocket_connect("/")
        with pytest.raises(TimeoutError, match="it ignored its cancellation"):
            await session.aclose()
        freed.set()
        await session.aclose()


async def test_an_app_that_is_no_coroutine_function_is_named() -> None:
    class Odd:
        def __call__(self, scope: Scope, receive: Receive, send: Send) -> asyncio.Future[None]:
            return asyncio.get_running_loop().create_future()

    lifespan = AppLifespan(Odd(), 0.05)
    with pytest.raises(TimeoutError, match=r"Odd did not finish its startup .* it waits outside of coroutines"):
        await lifespan.start()


async def test_the_end_of_the_client_ends_its_sessions() -> None:
    ended = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        ended.append(await until_disconnect(receive))

    async with AsyncTestClient(websocket_app(conversation)) as client:
        await client.websocket_connect("/")
        await client.websocket_connect("/")
    assert len(ended) == 2


async def test_the_end_of_the_client_raises_the_exceptions_of_its_sessions() -> None:
    app = fails_with(LookupError("boom"), dict(ACCEPT))
    client = AsyncTestClient(app)
    await client.__aenter__()
    await client.websocket_connect("/")
    with pytest.raises(LookupError):
        await client.__aexit__(None, None, None)
    await client.__aenter__()
    await client.websocket_connect("/")
    await client.websocket_connect("/")
    with pytest.raises(ExceptionGroup, match="several sessions failed") as caught:
        await client.__aexit__(None, None, None)
    assert [type(error) for error in caught.value.exceptions] == [LookupError, LookupError]


async def test_cancelling_the_test_at_the_end_of_a_session_cancels_the_app() -> None:
    async with AsyncTestClient(stubborn) as client:
        session = await client.websocket_connect("/")
        leaving = asyncio.create_task(session.aclose())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await session.aclose()


async def test_hundreds_of_connections_leak_nothing() -> None:
    async with AsyncTestClient(echo) as client:
        before = asyncio.all_tasks()
        for number in range(300):
            async with client.websocket_connect("/") as session:
                await session.send_text(str(number))
                await session.expect(str(number))
        assert asyncio.all_tasks() <= before


async def test_a_cancelled_error_that_the_app_raises_is_raised() -> None:
    async with AsyncTestClient(cancels_itself) as client:
        async with client.websocket_connect("/") as session:
            with pytest.raises(asyncio.CancelledError):
                await session.receive()
        with pytest.raises(asyncio.CancelledError):
            async with client.websocket_connect("/"):
                pass
        await client.websocket_connect("/")
        with pytest.raises(asyncio.CancelledError):
            await client.__aexit__(None, None, None)
    with pytest.raises(ZeroDivisionError) as caught:
        async with AsyncTestClient(cancels_itself).websocket_connect("/"):
            raise ZeroDivisionError
    assert "CancelledError" in caught.value.__notes__[0]


async def test_a_cancelled_error_that_the_lifespan_raises_is_raised() -> None:
    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        await AsyncTestClient(cancelled).__aenter__()
