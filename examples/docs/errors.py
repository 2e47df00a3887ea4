from telex import Telex, ValidationException, WebSocket, websocket_listener


class OutOfStock(Exception):
    pass


def explain(socket: WebSocket, error: ValidationException) -> dict[str, str]:
    """Answers a message that does not fit."""
    return {"problem": error.detail, "at": error.path}


async def sold_out(socket: WebSocket, error: OutOfStock) -> dict[str, str]:
    """Replies when a handler raised; the connection stays open."""
    return {"problem": f"{error} is sold out"}


@websocket_listener("/orders", exception_handlers={OutOfStock: sold_out})
async def order(data: dict[str, int]) -> str:
    if "moon" in data:
        raise OutOfStock("moon")
    return "ordered"


@websocket_listener("/strict", on_invalid_message="close")
async def strict(data: int) -> int:
    return data


@websocket_listener("/patient", max_invalid_messages=3)
async def patient(data: int) -> int:
    return data


app = Telex([order], exception_handlers={ValidationException: explain})
plain = Telex([strict, patient])
