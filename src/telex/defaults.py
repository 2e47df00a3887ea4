"""The defaults that more than one module uses."""

from __future__ import annotations

from typing import Final

__all__ = (
    "KIB",
    "MAX_CALLS",
    "MAX_INVALID_MESSAGES",
    "MAX_MESSAGE_SIZE",
    "MAX_QUEUED_MESSAGES",
    "MAX_STREAMS",
    "MAX_TOKEN",
    "MIB",
    "PING_AFTER",
)

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_MESSAGE_SIZE: Final = 1 * MIB
"""Bytes of one message; a larger one closes with 1009."""
MAX_QUEUED_MESSAGES: Final = 16
"""Messages that are read ahead while a handler is busy; then reading stops and TCP slows the client down."""
MAX_INVALID_MESSAGES: Final = 10
"""The number of consecutive invalid messages that closes the connection with 1007."""

MAX_CALLS: Final = 32
"""Calls and notifies of one telex.v1 connection that are in work or wait."""
MAX_STREAMS: Final = 8
"""Answers in parts that are open at once on one telex.v1 connection."""
MAX_TOKEN: Final = 8 * KIB
"""Characters of a token; a client with a longer one is refused."""
PING_AFTER: Final = 20.0
"""Seconds after which a server that sends nothing else sends a ``ping`` of telex.v1."""

MAX_THREADS: Final = 40
"""Threads that run the sync functions of one event loop (``sync_to_thread=True``); further calls wait for a thread."""
