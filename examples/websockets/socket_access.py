"""``socket`` is the connection itself. Its methods are asynchronous, and so must be the listener."""

from telex import Telex, WebSocket, websocket_listener


@websocket_listener("/")
async def handler(data: str, socket: WebSocket) -> str | None:
    if data == "goodbye":
        await socket.close(reason="it was a pleasure")
        return None
    return data


app = Telex([handler])
