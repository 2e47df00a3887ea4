"""The app's lifespan, around the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from telex.testing import AsyncTestClient
from telex.testing.lifespan import AppLifespan
from telex.types import ASGIApp, Message, Receive, Scope, Send

from .apps import ACCEPT, Lifespanned, echo

Live = Callable[[Receive, Send], Awaitable[None]]


def lives(live: Live) -> ASGIApp:
    """An echo app with this lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
        else:
            await echo(scope, receive, send)

    return app


async def started(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})


async def use(app: ASGIApp) -> None:
    """One message over one connection."""
    async with AsyncTestClient(app, timeout=0.1) as client, client.websocket_connect("/") as session:
        await session.send_text("a")
        await session.expect("a")


async def test_startup_and_shutdown_surround_the_test() -> None:
    app = Lifespanned()
    async with AsyncTestClient(app):
        assert app.diary == ["startup"]
    assert app.diary == ["startup", "shutdown"]


async def test_a_client_can_be_entered_again() -> None:
    app = Lifespanned()
    client = AsyncTestClient(app)
    for _ in range(2):
        async with client:
            assert app.diary[-1] == "startup"
    assert app.diary == ["startup", "shutdown"] * 2


async def test_an_app_without_a_lifespan_is_usable() -> None:
    async def returns(receive: Receive, send: Send) -> None:
        return

    async def raises(receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def answers_as_if_to_a_connection(receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))

    for live in (returns, raises, answers_as_if_to_a_connection):
        await use(lives(live))


async def test_an_app_whose_lifespan_returns_after_startup_is_usable() -> None:
    await use(lives(started))


async def test_a_second_answer_to_startup_is_ignored() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await started(receive, send)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    await use(lives(live))


async def test_an_exception_of_the_startup_is_raised() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        await use(lives(live))


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_the_exception_after_a_failed_answer_is_raised(phase: str) -> None:
    async def live(receive: Receive, send: Send) -> None:
        while (await receive())["type"] != f"lifespan.{phase}":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": f"lifespan.{phase}.failed", "message": "traceback"})
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        await use(lives(live))


async def test_a_failed_answer_without_an_exception_is_raised_with_its_message() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match=r"app answered lifespan\.startup\.failed: no database"):
        await use(lives(live))


async def test_a_startup_without_an_answer_is_an_error() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await receive()

    with pytest.raises(RuntimeError, match=r"ended its lifespan without an answer to lifespan\.startup"):
        await use(lives(live))


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_phase_that_does_not_end_is_cancelled_and_named(phase: str) -> None:
    cancelled = []

    async def hangs(receive: Receive, send: Send) -> None:
        while (await receive())["type"] != f"lifespan.{phase}":
            await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(phase)
            raise

    with pytest.raises(TimeoutError, match=rf"did not finish its {phase} within 0\.1 s; it waits in .*hangs"):
        await use(lives(hangs))
    assert cancelled == [phase]


async def test_an_exception_of_the_lifespan_after_startup_is_raised_at_the_end() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await started(receive, send)
        raise LookupError("worker died")

    with pytest.raises(LookupError, match="worker died"):
        await use(lives(live))


async def test_a_lifespan_that_was_not_started_need_not_be_stopped() -> None:
    lifespan = AppLifespan(Lifespanned(), 1)
    await lifespan.stop()
    assert lifespan.state == {}


async def test_an_exception_of_the_test_takes_precedence_over_a_failed_shutdown() -> None:
    async def live(receive: Receive, send: Send) -> None:
        await started(receive, send)
        event: Message = await receive()
        raise LookupError(event["type"])

    with pytest.raises(ZeroDivisionError) as caught:
        async with AsyncTestClient(lives(live)):
            raise ZeroDivisionError
    assert "LookupError: lifespan.shutdown" in caught.value.__notes__[0]
