import os

import msgspec

from telex import Multiplex, PermissionDeniedException, Telex, WebSocket, channel_listener, websocket_listener
from telex.channels import Channels, Keep
from telex.handlers import Handler


class Say(msgspec.Struct):
    text: str


def may_join(socket: WebSocket, _: Handler) -> None:
    """Runs for each room that is opened, with the cookies and headers of the shared socket's handshake."""
    if socket.path_params["room"] == "staff" and socket.cookies.get("user") != "ada":
        raise PermissionDeniedException("this room is not yours")


room = channel_listener("/rooms/{room:str}", channel="room:{room}", publish=Say, guards=[may_join])


@websocket_listener("/search")
async def search(data: str) -> list[str]:
    return [name for name in ("lobby", "library", "staff") if data in name]


channels = Channels(
    os.environ.get("CHANNELS_URL", "memory://"),
    arbitrary_channels_allowed=True,
    history={"room:*": Keep(size=200, seconds=3600)},
)
app = Telex([room, search, Multiplex("/socket", routes=[room, search])], plugins=[channels])
