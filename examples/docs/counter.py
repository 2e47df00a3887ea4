from collections.abc import AsyncGenerator

from telex import Provide, Telex, websocket_listener


class Counter:
    def __init__(self) -> None:
        self.count = 0


async def open_counter() -> AsyncGenerator[Counter, None]:
    counter = Counter()
    yield counter
    print(f"this connection counted to {counter.count}")


@websocket_listener("/count", dependencies={"counter": Provide(open_counter)})
async def count(data: int, counter: Counter) -> int:
    counter.count += data
    return counter.count


app = Telex([count])
