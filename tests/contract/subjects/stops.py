"""The subjects of ``ends`` for a process that ends: what they note, and what is logged, goes to stderr line by line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Final

from telex import Telex
from telex.types import Receive, Scope, Send
from tests.contract.subjects import ends
from tests.contract.subjects.journal import journal, probe

connection: Final[ContextVar[str]] = ContextVar("connection", default="")
"""The name of the connection whose work runs."""


def write(text: str) -> None:
    print(f"{connection.get()}: {text}", file=sys.stderr, flush=True)  # noqa: T201


journal.keep_log()
journal.tell = write


@contextlib.asynccontextmanager
async def ended_by_signal(_: Telex) -> AsyncGenerator[None, None]:
    """SIGUSR1 ends the work that waits for a test: of a thread, and of the newest connection."""
    loop = asyncio.get_running_loop()

    def end(*_: object) -> None:
        ends.may_end.set()
        loop.call_soon_threadsafe(ends.trigger.set)

    signal.signal(signal.SIGUSR1, end)
    yield


served = Telex([probe, ends.ends], lifespan=[ended_by_signal])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    connection.set(scope.get("path", "").removeprefix("/ends/"))
    await served(scope, receive, send)
