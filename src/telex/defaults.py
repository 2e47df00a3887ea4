"""The defaults that more than one module uses."""

from __future__ import annotations

from typing import Final

__all__ = ("KIB", "MAX_INVALID_MESSAGES", "MAX_MESSAGE_SIZE", "MAX_QUEUED_MESSAGES", "MIB")

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_MESSAGE_SIZE: Final = 1 * MIB
"""Bytes of one message; a larger one closes with 1009."""
MAX_QUEUED_MESSAGES: Final = 16
"""Messages that are read ahead while a handler is busy; then reading stops and TCP slows the client down."""
MAX_INVALID_MESSAGES: Final = 10
"""The number of consecutive invalid messages that closes the connection with 1007."""

MAX_THREADS: Final = 40
"""Threads that run the sync functions of one event loop (``sync_to_thread=True``); further calls wait for a thread."""
