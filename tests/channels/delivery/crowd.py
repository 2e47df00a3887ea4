"""An app for a process of its own: many followers of one channel, and who publishes to it."""

from __future__ import annotations

import asyncio
from typing import Any

from telex import Telex, WebSocket, websocket, websocket_listener
from telex.channels import Channels
from telex.channels.delivery.encoding import as_text
from telex.channels.delivery.forward import forward

hub = Channels("memory://", channels=["news"], subscriber_max_backlog=10, subscriber_backlog_strategy="drop_oldest")


@websocket("/follow")
async def follow(socket: WebSocket[Any, Any, Any], channels: Channels) -> None:
    await socket.accept()
    async with channels.subscribe("news") as events:
        await socket.send_text("follows")
        await forward(events, socket, as_text)


@websocket_listener("/publish")
async def publish(data: str, channels: Channels) -> None:
    await channels.publish("news", data)


@websocket_listener("/figures")
async def figures(data: str, channels: Channels) -> dict[str, int]:
    found = channels.statistics()
    return {
        "subscribers": found.subscribers,
        "backlog": found.backlog,
        "dropped": found.dropped,
        "senders": sum(task.get_name() == "telex.channels.sender" for task in asyncio.all_tasks()),
    }


app = Telex([follow, publish, figures], plugins=[hub], max_message_size=1 << 20)
