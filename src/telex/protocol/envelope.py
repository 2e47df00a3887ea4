"""What a connection needs to know of the frames that it speaks; :class:`telex.protocol.calls.CallSession` does it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

__all__ = ("MULTIPLEXED", "SUBPROTOCOL", "Envelope")

SUBPROTOCOL: Final = "telex.v1"

MULTIPLEXED: Final = "telex.multiplexed"
"""The ASGI extension of a virtual connection: its denial becomes a ``denied`` frame, not an accepted connection."""


class Envelope(Protocol):
    """The frames of one connection that speaks ``telex.v1``."""

    def begin(self) -> Awaitable[None]:
        """Send the first frame; called once, as soon as the connection is accepted."""

    def notify(self, data: object) -> Awaitable[None]:
        """Send a value that wants no answer: text as a JSON string, bytes as a binary frame, other values as JSON."""

    def call(self, data: object, answer: Any, within: float) -> Awaitable[Any]:
        """Ask the client, and return its answer as the type ``answer``."""
