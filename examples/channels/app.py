"""Rooms, the progress of jobs and a dashboard: one app on any number of processes and machines.

``CHANNELS_URL=redis://localhost telex run examples.channels.app:app --port 8001`` is one node, with ``--port 8002``
another. ``/rooms/{room}?name=Ada`` is a room, ``/jobs/{job}`` shows the progress of a job, ``/dashboard`` all nodes.
"""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from msgspec import Meta, Struct, json

from examples.channels.shared import HISTORY, URL
from telex import AppConfig, Telex, WebSocket, channel_listener, websocket_stream
from telex.channels import Channels, Event, Heartbeat, conflate
from telex.exceptions import ClientException
from telex.handlers import Handler

NODE = f"{sockets.gethostname()}:{os.getpid()}"
EVERY = 0.5
"""Seconds between two reports of a node."""


# -- rooms


class Say(Struct, frozen=True):
    """A message in a room. The client chooses the author."""

    author: Annotated[str, Meta(min_length=1, max_length=24)]
    text: Annotated[str, Meta(min_length=1, max_length=2000)]


def named(socket: WebSocket, _: Handler) -> None:
    """Guard: a client of a room must have a name."""
    if not 0 < len(socket.query_params.get("name", "")) <= 24:
        raise ClientException("who are you? ?name= has 1 to 24 characters")


def name_of(socket: WebSocket) -> str:
    return str(socket.query_params["name"])


room = channel_listener(
    "/rooms/{room:str}", channel="room:{room}", publish=Say, history=50, presence=name_of, guards=[named]
)


# -- jobs

job = channel_listener("/jobs/{job:str}", channel="job:{job}", history=-1)


# -- the dashboard


class Report(Struct, frozen=True):
    """The state of one process."""

    node: str
    subscribers: int
    delivered: int


class Reporter:
    """A plugin that publishes a report of this process at intervals.

    It is after the channels in ``plugins``, and so runs while they are open.
    """

    def __init__(self, channels: Channels) -> None:
        self.channels = channels

    def on_app_init(self, config: AppConfig) -> None:
        config.lifespan.append(self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report())
            yield
            reporting.cancel()

    async def _report(self) -> None:
        while True:
            figures = self.channels.statistics()
            # Not awaited: a report that is delayed by the broker is of no use later.
            self.channels.publish_nowait(f"node:{NODE}", Report(NODE, figures.subscribers, figures.delivered))
            await asyncio.sleep(EVERY)


def node_of(item: Event) -> str:
    return item.channel


@websocket_stream("/dashboard")
async def dashboard(channels: Channels) -> AsyncGenerator[Report, None]:
    """The reports of all processes. A slow client gets the newest of each, and no outdated one."""
    async with channels.subscribe("node:*", pattern=True, backlog_strategy=conflate(node_of)) as reports:
        async for data in reports.iter_events():
            yield json.decode(data, type=Report)


channels = Channels(
    URL,
    arbitrary_channels_allowed=True,
    history=HISTORY,
    presence=Heartbeat(seconds=1, lost_after=4),
    subscriber_max_backlog=500,
)
app = Telex([room, job, dashboard], plugins=[channels, Reporter(channels)], max_message_size=16 * 1024)
