from telex import Telex, WebSocket, WebSocketDisconnect, websocket


@websocket("/ws")
async def endpoint(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            text = await socket.receive_text()
            await socket.send_text(f"you wrote {text}")
    except WebSocketDisconnect as left:
        print(f"the client left with {left.code}")


app = Telex([endpoint])
