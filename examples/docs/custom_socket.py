import msgspec

from telex import State, Telex, WebSocket, websocket, websocket_listener
from telex.types import Mode


class ConnectionState(State):
    messages: int


class CountingSocket(WebSocket[str, None, ConnectionState]):
    """Counts its messages, and sends notices in one format."""

    async def send_data(self, data: str | bytes, mode: Mode = "text", encoding: str = "utf-8") -> None:
        self.state.messages = self.state.get("messages", 0) + 1
        await super().send_data(data, mode, encoding)

    async def announce(self, text: str) -> None:
        await self.send_json(Notice(text, self.state.get("messages", 0)))


class Notice(msgspec.Struct):
    notice: str
    sent_before: int


@websocket_listener("/echo")
async def echo(data: str, socket: CountingSocket) -> str:
    await socket.announce("a message came")
    return data


@websocket("/plain", websocket_class=WebSocket)
async def plain(socket: WebSocket) -> None:
    await socket.send_text(type(socket).__name__)


app = Telex([echo, plain], websocket_class=CountingSocket)
