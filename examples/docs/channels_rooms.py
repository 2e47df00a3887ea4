import os
from typing import Annotated

from msgspec import Meta, Struct

from telex import NotAuthorizedException, PermissionDeniedException, Telex, WebSocket, channel_listener
from telex.channels import Channels, Heartbeat, Keep
from telex.handlers import Handler

MEMBERS = {"lobby": {"ada", "bo"}, "staff": {"ada"}}


class Say(Struct):
    """What a client may publish; anything else is answered with an error."""

    text: Annotated[str, Meta(min_length=1, max_length=2000)]


def user_of(socket: WebSocket) -> str:
    name = socket.cookies.get("user")
    if name is None:
        raise NotAuthorizedException("log in first")
    return name


def may_join(socket: WebSocket, _: Handler) -> None:
    """The join guard: it runs before anything is subscribed or sent."""
    if user_of(socket) not in MEMBERS.get(socket.path_params["room"], ()):
        raise PermissionDeniedException("this room is not yours")


room = channel_listener(
    "/rooms/{room:str}",
    channel="room:{room}",
    guards=[may_join],
    publish=Say,
    history=50,
    presence=user_of,
)

channels = Channels(
    os.environ.get("CHANNELS_URL", "memory://"),
    arbitrary_channels_allowed=True,
    history={"room:*": Keep(size=200, seconds=3600)},
    presence=Heartbeat(),
)
app = Telex([room], plugins=[channels])
