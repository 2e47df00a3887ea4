"""``data`` that is neither ``str`` nor ``bytes`` is JSON, decoded and validated into its annotation."""

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: dict[str, int]) -> str:
    return f"{len(data)} scores, the best is {max(data.values(), default=0)}"


app = Telex([handler])
