"""Any other value is sent as JSON."""

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: str) -> dict[str, str | int]:
    return {"message": data, "length": len(data)}


app = Telex([handler])
