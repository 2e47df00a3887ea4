"""Dataclasses are sent as JSON too, nested ones included."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from telex import Telex, websocket_listener


@dataclass
class Message:
    content: str
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@websocket_listener("/")
async def handler(data: str) -> Message:
    return Message(content=data)


app = Telex([handler])
