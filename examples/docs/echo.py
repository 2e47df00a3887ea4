from telex import Telex, websocket_listener


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


app = Telex([echo])
