import asyncio
from typing import Annotated

import msgspec

from telex import Telex, WebsocketListener


class Order(msgspec.Struct, tag="order"):
    article: str
    count: Annotated[int, msgspec.Meta(ge=1, le=99)] = 1


class Restock(msgspec.Struct, tag="restock"):
    article: str
    count: int


class Placed(msgspec.Struct):
    number: int
    left: int


class SoldOut(Exception):
    """A declared error: callers get its code, ``sold_out``, its text, and its public attributes as ``data``."""

    def __init__(self, article: str, left: int) -> None:
        super().__init__(f"there are only {left} of {article}")
        self.left = left


class Shop(WebsocketListener):
    path = "/shop"
    errors = [SoldOut]
    call_timeout = 10  # seconds, waiting included

    def __init__(self) -> None:
        self.stock = {"tea": 3}
        self.orders = 0

    async def on_order(self, data: Order) -> Placed:
        await asyncio.sleep(0.01)  # the database
        left = self.stock.get(data.article, 0)
        if data.count > left:
            raise SoldOut(data.article, left)
        self.stock[data.article] = left - data.count
        self.orders += 1
        return Placed(self.orders, left - data.count)

    async def on_restock(self, data: Restock) -> None:
        self.stock[data.article] = self.stock.get(data.article, 0) + data.count


app = Telex([Shop])
