"""With ``debug=True`` a sync callable that blocks the loop is named; without it nothing is timed."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from telex import Provide, Telex, WebSocket, websocket_listener
from telex.slow_callbacks import BLOCKING_AFTER, report_blocking
from tests.support.live import asked, talking


def block() -> None:
    time.sleep(BLOCKING_AFTER * 1.2)


def app(what: str, **options: Any) -> Telex:
    def slow_provider() -> int:
        if what == "provider":
            block()
        return 1

    def slow_hook() -> None:
        if what == "hook":
            block()

    def slow_guard(socket: WebSocket) -> None:
        if what == "guard":
            block()

    @websocket_listener(
        "/",
        dependencies={"value": Provide(slow_provider)},
        on_accept=slow_hook,
        guards=[slow_guard],
        sync_to_thread=what == "thread",
    )
    def slow_listener(data: str, value: int) -> str:
        if what in {"listener", "thread"}:
            block()
        return data

    return Telex([slow_listener], **options)


@pytest.mark.parametrize("what", ["provider", "hook", "listener", "guard"])
async def test_a_sync_callable_that_blocks_is_reported_by_name(what: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "telex"):
        async with talking(app(what, debug=True)) as client:
            assert await asked(client, "x") == "x"
    reports = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert len(reports) == 1
    assert f"slow_{what} (tests/test_slow_callbacks.py:" in reports[0]
    assert "sync_to_thread=True" in reports[0]


@pytest.mark.parametrize(("what", "debug"), [("listener", False), ("thread", True), ("nothing", True)])
async def test_nothing_is_reported_otherwise(what: str, debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "telex"):
        async with talking(app(what, debug=debug)) as client:
            assert await asked(client, "x") == "x"
    assert "blocked" not in caplog.text


def test_one_that_raises_is_reported_too(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> None:
        block()
        raise KeyError

    with pytest.raises(KeyError), caplog.at_level(logging.WARNING, "telex"):
        report_blocking(failing, "it")()
    assert "it blocked the event loop for" in caplog.text
