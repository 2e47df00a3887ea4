import os

from msgspec import Struct

from examples.docs.channels_rooms import Say, may_join, user_of
from telex import Telex, WebSocket, channel_listener
from telex.channels import Channels, Heartbeat, Keep

COLOURS = {"ada": "teal", "bo": "plum"}


class Said(Struct):
    author: str
    text: str


def stamp(data: Say, socket: WebSocket) -> Said | None:
    """The server sets the author. ``None`` publishes nothing."""
    text = data.text.strip()
    return Said(user_of(socket), text) if text else None


async def face_of(socket: WebSocket) -> tuple[str, object]:
    """The key of the member, and the metadata that others see; it could come from a database."""
    name = user_of(socket)
    return name, {"colour": COLOURS.get(name, "grey")}


room = channel_listener(
    "/rooms/{room:str}",
    channel="room:{room}",
    guards=[may_join],
    publish=Say,
    on_publish=stamp,
    presence=face_of,
    max_backlog=200,
    backlog_strategy="drop_oldest",
    on_gap="close",
)

channels = Channels(
    os.environ.get("CHANNELS_URL", "memory://"),
    arbitrary_channels_allowed=True,
    history={"room:*": Keep(size=200, seconds=3600)},
    presence=Heartbeat(),
)
app = Telex([room], plugins=[channels])
