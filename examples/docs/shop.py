from typing import Annotated

import msgspec

from telex import Telex, websocket_listener


class Order(msgspec.Struct):
    article: str
    count: Annotated[int, msgspec.Meta(ge=1, le=99)] = 1


class Receipt(msgspec.Struct):
    article: str
    count: int
    shop: str
    currency: str


@websocket_listener("/shops/{shop:str}/orders")
async def take_order(data: Order, shop: str, currency: str = "EUR") -> Receipt:
    return Receipt(data.article, data.count, shop, currency)


app = Telex([take_order])
