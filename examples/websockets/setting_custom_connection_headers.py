"""``connection_accept_handler`` replaces the default accept: here with a header."""

from telex import Telex, WebSocket, websocket_listener


async def accept_connection(socket: WebSocket) -> None:
    await socket.accept(headers={"x-served-by": "telex"})


@websocket_listener("/", connection_accept_handler=accept_connection)
def handler(data: str) -> str:
    return data


app = Telex([handler])
