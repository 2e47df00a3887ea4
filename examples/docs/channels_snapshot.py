from collections.abc import AsyncGenerator

from telex import Channels, Telex, websocket_listener, websocket_stream
from telex.channels import Event, Gap, Keep

stock = {"tea": 5}
"""Stands for a database."""


@websocket_listener("/sell")
async def sell(data: str, channels: Channels) -> None:
    stock[data] -= 1
    await channels.publish("stock", {data: stock[data]})


@websocket_stream("/stock")
async def watch(channels: Channels) -> AsyncGenerator[object, None]:
    """The whole state, and then each change. No change is missed between the two."""
    while True:
        position = await channels.position("stock")
        yield dict(stock)
        async with channels.subscribe("stock", since=position) as changes:
            async for item in changes:
                if isinstance(item, Gap):
                    break  # changes were lost: the whole again
                assert isinstance(item, Event)
                yield item.data


app = Telex(
    [sell, watch],
    plugins=[Channels("memory://", channels=["stock"], history=Keep(size=1000, seconds=60))],
)
