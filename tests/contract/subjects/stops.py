"""The subjects of ``ends`` for a process that ends: what they note, and what is logged, goes to stderr line by line."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Final

from telex import Telex
from telex.types import Receive, Scope, Send
from tests.contract.subjects.ends import ends
from tests.contract.subjects.journal import journal, probe

connection: Final[ContextVar[str]] = ContextVar("connection", default="")
"""The name of the connection whose work runs."""


def write(text: str) -> None:
    print(f"{connection.get()}: {text}", file=sys.stderr, flush=True)  # noqa: T201


journal.keep_log()
journal.tell = write
served = Telex([probe, ends])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    connection.set(scope.get("path", "").removeprefix("/ends/"))
    await served(scope, receive, send)
