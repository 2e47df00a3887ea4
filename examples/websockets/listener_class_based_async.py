"""The same with asynchronous hooks, which may use the socket."""

from telex import Telex, WebSocket, WebsocketListener


class Rings(WebsocketListener):
    path = "/"

    def __init__(self) -> None:
        self.sockets: set[WebSocket] = set()

    async def on_accept(self, socket: WebSocket) -> None:
        await self.tell("somebody came")
        self.sockets.add(socket)

    async def on_disconnect(self, socket: WebSocket) -> None:
        self.sockets.discard(socket)
        await self.tell("somebody left")

    async def on_receive(self, data: str) -> str:
        return data

    async def tell(self, news: str) -> None:
        for socket in tuple(self.sockets):
            if socket.is_open:
                await socket.send_text(news)


app = Telex([Rings])
