"""The server's side of one ASGI connection as a script: what the app receives, and what it has sent."""

from __future__ import annotations

import asyncio
from typing import Any

from telex.types import Message, Scope


class Peer:
    """Give it as ``receive`` and ``send``. Events come in the order given; then ``receive`` waits for more.

    ``broken`` makes every send fail as a lost connection does, the first ``broken_after`` sends excepted.
    """

    def __init__(self, *events: Message, connect: bool = True, broken: bool = False, broken_after: int = 0) -> None:
        self._events: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.sent: list[Message] = []
        self.broken = broken
        self.broken_after = broken_after
        self.received = 0
        for event in ([{"type": "websocket.connect"}] if connect else []) + list(events):
            self._events.put_nowait(event)

    async def receive(self) -> Message:
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        self.received += 1
        return event

    async def send(self, event: Message) -> None:
        if self.broken and len(self.sent) >= self.broken_after:
            raise OSError("gone")
        self.sent.append(event)

    def connect(self) -> None:
        """The handshake begins, where it was left out."""
        self._events.put_nowait({"type": "websocket.connect"})

    def tell(self, *messages: str | bytes) -> None:
        """Messages from the client."""
        for message in messages:
            key = "text" if isinstance(message, str) else "bytes"
            self._events.put_nowait({"type": "websocket.receive", key: message})

    def leave(self, code: int = 1001, reason: str = "bye") -> None:
        """The client leaves."""
        self._events.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def fail(self, exc: Exception) -> None:
        """The server's own ``receive`` fails."""
        self._events.put_nowait(exc)

    @property
    def kinds(self) -> list[str]:
        """The types of what was sent."""
        return [event["type"] for event in self.sent]

    @property
    def payloads(self) -> list[Any]:
        """The messages that were sent."""
        return [event.get("text", event.get("bytes")) for event in self.sent if event["type"] == "websocket.send"]


def scope(path: str = "/", *, denial: bool = True, headers: dict[str, str] | None = None, **more: Any) -> Scope:
    """A ``websocket`` scope."""
    given = {"host": "testserver", **(headers or {})}
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("10.0.0.1", 5000),
        "server": ("testserver", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial else {},
        **more,
    }
