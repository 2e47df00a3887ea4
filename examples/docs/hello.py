import msgspec

from telex import Telex, websocket_listener


class Greeting(msgspec.Struct):
    name: str


@websocket_listener("/hello")
async def hello(data: Greeting) -> str:
    return f"Hello, {data.name}!"


app = Telex([hello])
