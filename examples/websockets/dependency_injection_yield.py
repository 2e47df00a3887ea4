"""A dependency that yields: the code after ``yield`` runs when the connection has ended."""

from collections.abc import AsyncGenerator

from telex import Provide, State, Telex, websocket_listener


async def connection_number(state: State) -> AsyncGenerator[int, None]:
    state.opened += 1
    state.open += 1
    try:
        yield state.opened
    finally:
        state.open -= 1


@websocket_listener("/", dependencies={"number": Provide(connection_number)})
async def handler(data: str, number: int, state: State) -> str:
    return f"{data} from connection {number}, {state.open} open"


app = Telex([handler], state={"opened": 0, "open": 0})
