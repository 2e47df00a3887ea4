from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from telex import Provide, State, Telex, WebSocket, WebsocketListener, websocket_listener


class Scores:
    def __init__(self) -> None:
        self.points: dict[str, int] = {}


class AppState(State):
    greeting: str


@asynccontextmanager
async def open_greeting(app: Telex) -> AsyncGenerator[None, None]:
    app.state.greeting = "welcome"
    yield
    del app.state.greeting


@websocket_listener("/scores")
async def score(data: str, scores: Scores) -> int:
    """One ``Scores`` for the whole app: a provider that is cached."""
    scores.points[data] = scores.points.get(data, 0) + 1
    return scores.points[data]


@websocket_listener("/greeting")
async def greet(data: str, state: AppState) -> str:
    """The app's state, filled when the app started."""
    return f"{state.greeting}, {data}"


class Everybody(WebsocketListener):
    """One instance serves all connections: what they share is on ``self``."""

    path = "/everybody"

    def __init__(self) -> None:
        self.sockets: set[WebSocket] = set()

    async def on_accept(self, socket: WebSocket) -> None:
        self.sockets.add(socket)

    async def on_disconnect(self, socket: WebSocket) -> None:
        self.sockets.discard(socket)

    async def on_receive(self, data: str) -> int:
        return len(self.sockets)


app = Telex(
    [score, greet, Everybody],
    dependencies={"scores": Provide(Scores, use_cache=True)},
    state=AppState(),
    lifespan=open_greeting,
)
