import asyncio

from telex import Telex, websocket_listener


@websocket_listener("/fetch", max_concurrency=8)
async def fetch(data: float) -> float:
    """Up to eight messages of one connection at once; replies come in the order of completion."""
    await asyncio.sleep(data)
    return data


app = Telex([fetch])
