"""``websocket_class``, on any layer: a socket with a method of its own, and another way to receive."""

from telex import Telex, WebSocket, websocket_listener
from telex.types import Mode


class QuietWebSocket(WebSocket):
    """Returns every message in lower case."""

    async def receive_data(self, mode: Mode) -> str | bytes:
        data = await super().receive_data(mode)
        return data.lower()

    @property
    def language(self) -> str:
        return self.headers.get("accept-language", "en")


@websocket_listener("/")
async def handler(data: str, socket: QuietWebSocket) -> str:
    return f"{data} ({socket.language})"


app = Telex([handler], websocket_class=QuietWebSocket)
