from telex import Telex, WebSocket, websocket


@websocket("/shout")
async def shout(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


app = Telex([shout])
