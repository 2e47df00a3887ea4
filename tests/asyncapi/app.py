"""An app with every kind of handler and of model, whose document is kept beside it."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic

from telex import (
    AsyncAPI,
    Authenticate,
    Channels,
    FromCookie,
    FromHeader,
    FromQuery,
    Multiplex,
    Parameter,
    Router,
    Telex,
    WebSocket,
    WebsocketListener,
    channel_listener,
    receives,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.auth import Identity
from telex.channels import Heartbeat, Keep, MemoryBackend
from telex.dto import DataclassDTO, DTOConfig
from telex.limits import Limit

T = TypeVar("T")


class Colour(enum.Enum):
    """The colours of a piece."""

    RED = "red"
    BLUE = "blue"


class Move(msgspec.Struct, tag="move"):
    """Moves a piece.

    A second paragraph of the description.
    """

    x: Annotated[int, msgspec.Meta(ge=0, le=7, examples=[3], description="The column.")]
    colour: Colour = Colour.RED
    at: tuple[int, str] = (0, "a")


class Say(msgspec.Struct, tag="say", forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    to: str | msgspec.UnsetType = msgspec.UNSET
    extra: Any = None


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class Page(msgspec.Struct, Generic[T]):
    items: list[T]
    more: bool = False


@dataclass
class Moved:
    by: uuid.UUID
    at: dt.datetime
    price: decimal.Decimal = decimal.Decimal("1.5")
    kind: Literal["step", "jump", 3] = "step"


class Options(TypedDict):
    name: str
    size: NotRequired[int]


class Order(pydantic.BaseModel):
    """An order."""

    kind: Literal["order"]
    count: int = pydantic.Field(default=1, ge=1, examples=[2])
    note: str | None = None


class Cancel(pydantic.BaseModel):
    kind: Literal["cancel"]
    number: int


class Placed(pydantic.BaseModel):
    number: int
    total: float = 0.0


@dataclass
class Address:
    street: str
    secret: str = "x"


@dataclass
class User:
    id: int
    name: str
    address: Address
    tags: list[str] = field(default_factory=list)


ReadUser = DataclassDTO[Annotated[User, DTOConfig(rename_strategy="camel", exclude={"address.secret"})]]


class NoSuchRoom(Exception):
    """There is no room of this name."""

    def __init__(self, room: str) -> None:
        super().__init__(f"there is no room {room}")
        self.room = room


class Full(Exception):
    code = "room_full"


class Confirm(msgspec.Struct, tag="confirm"):
    question: str


class Answer(msgspec.Struct):
    yes: bool


class Joined(msgspec.Struct, tag="joined"):
    who: str


class Point(msgspec.Struct, array_like=True, tag="point"):
    x: int
    y: int = 0


def members_only(socket: WebSocket) -> None: ...


@websocket_listener(
    "/rooms/{room:str}/{number:int}",
    name="room",
    guards=[members_only],
    errors=[NoSuchRoom, Full],
    call_timeout=5,
    pushes=Joined | str,
    asks={Confirm: Answer},
    message_limit=Limit(50, per=1, burst=100, on_exceed="close"),
)
async def room(
    data: Move | Say,
    room: str,
    number: Annotated[int, Parameter(description="The number of the board.", ge=1)],
    page: int = 1,
    session: FromCookie[str | None] = None,
    user_agent: FromHeader[str] = "none",
    order: Annotated[Literal["new", "old"], Parameter(query="sort", examples=("new",))] = "new",
    ids: FromQuery[list[int] | None] = None,
) -> Moved | None:
    """Plays in a room.

    A move is answered with what it changed.
    """


def login(token: str) -> Identity[str]:
    return Identity(token)


class Table(WebsocketListener):
    path = ("/table", "/board")
    send_mode = "binary"

    @receives
    def move(self, data: Move) -> Page[Tree]:
        """Moves."""
        return Page([])

    @receives
    async def say(self, data: Say) -> AsyncIterator[Say | Point]:
        yield data


@websocket_listener(
    "/echo", authenticate=Authenticate(login, cookie="session", bearer=True, query="t", subprotocol=True)
)
def echo(data: str) -> str:
    return data


@websocket_listener("/bytes", receive_mode="binary", send_mode="binary")
def raw_bytes(data: bytes) -> bytes:
    return data


@websocket_listener("/options", idempotent=True)
def options(data: Options) -> dict[str, list[int]]:
    return {}


@websocket_listener("/orders")
def orders(data: Annotated[Order | Cancel, pydantic.Field(discriminator="kind")]) -> Placed:
    return Placed(number=1)


@websocket_listener("/users", dto=ReadUser)
def users(data: User) -> User:
    return data


@websocket_stream("/ticks")
async def ticks(kind: Colour = Colour.RED) -> AsyncGenerator[Point | Joined, None]:
    yield Point(1)


@websocket("/raw")
async def raw(socket: WebSocket) -> None: ...


@websocket("/incoming/{rest:path}", protocol="telex.v1", receives=Move | Say, pushes=Joined, asks={Confirm: Answer})
async def incoming(socket: WebSocket) -> None: ...


def author(data: Say) -> Joined:
    return Joined(data.text)


events = channel_listener("/rooms/{room:str}/events", channel="room:{room}", publish=Say, history=20)
watched = channel_listener("/watched", channel=lambda: "room:1", presence=lambda: "ada", publish=Say, on_publish=author)
news = channel_listener("/news", channel="news")

channels = Channels(
    MemoryBackend(), channels=["news"], arbitrary_channels_allowed=True, history=Keep(100), presence=Heartbeat()
)
v1 = Router("/v1", route_handlers=[echo, raw_bytes])
app = Telex(
    [
        room,
        Table,
        v1,
        options,
        orders,
        users,
        ticks,
        raw,
        incoming,
        events,
        watched,
        news,
        Multiplex("/socket", routes=[room, events]),
    ],
    plugins=[channels, AsyncAPI(title="Everything", version="1.4.0", description="Every kind of handler.")],
)
