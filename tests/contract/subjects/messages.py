"""Listeners for messages that are wrong in every way. Each notes the messages that it was called with."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel

from telex import Router, ValidationException, WebSocket, WebSocketException, websocket_listener
from tests.contract.subjects.journal import journal

LIMIT = 1000


class Move(msgspec.Struct, tag="move"):
    x: int
    y: int = 0


class Say(msgspec.Struct, tag="say"):
    text: str
    note: Any = None


class Order(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    price: float = 0
    name: str = ""
    items: list[int] = []


class Model(BaseModel):
    id: int
    note: Any = None


def entered(data: object) -> None:
    journal.note(f"entered {data!r}"[:200])


@websocket_listener("/tagged")
def tagged(data: Move | Say) -> Move | Say:
    entered(data)
    return data


@websocket_listener("/order")
async def order(data: Order) -> Order:
    entered(data)
    return data


@websocket_listener("/any")
def anything(data: Any) -> Any:
    entered(data)
    return data


@websocket_listener("/model")
def model(data: Model) -> Model:
    entered(data)
    return data


@websocket_listener("/binary", receive_mode="binary", send_mode="binary")
def binary(data: Order) -> Order:
    entered(data)
    return data


@websocket_listener("/binary-text", receive_mode="binary")
def binary_text(data: str) -> str:
    entered(data)
    return data


@websocket_listener("/text")
def text(data: str) -> str:
    entered(data)
    return data


@websocket_listener("/text-limited", max_message_size=LIMIT)
def text_limited(data: str) -> int:
    entered("a message")
    return len(data)


@websocket_listener("/text-limited-concurrent", max_message_size=LIMIT, max_concurrency=2)
async def text_limited_concurrent(data: str) -> int:
    entered("a message")
    return len(data)


@websocket_listener("/bytes-limited", receive_mode="binary", max_message_size=LIMIT)
def bytes_limited(data: bytes) -> int:
    entered("a message")
    return len(data)


@websocket_listener("/closes", on_invalid_message="close")
def closes(data: Order) -> Order:
    entered(data)
    return data


@websocket_listener("/three", max_invalid_messages=3)
def three(data: Order) -> Order:
    entered(data)
    return data


def answer(_: WebSocket[Any, Any, Any], exc: ValidationException) -> dict[str, str]:
    return {"refused": exc.path}


async def close_it(socket: WebSocket[Any, Any, Any], exc: ValidationException) -> None:
    await socket.close(4100, f"at {exc.path}")


def raise_another(_: WebSocket[Any, Any, Any], exc: ValidationException) -> None:
    raise WebSocketException(4200, f"raised at {exc.path}")


@websocket_listener("/handled/reply", exception_handlers={ValidationException: answer})
def handled_by_reply(data: Order) -> Order:
    return data


@websocket_listener("/handled/close", exception_handlers={ValidationException: close_it})
def handled_by_close(data: Order) -> Order:
    return data


@websocket_listener("/handled/raise", exception_handlers={ValidationException: raise_another})
def handled_by_raise(data: Order) -> Order:
    return data


messages = Router(
    path="/messages",
    route_handlers=[
        tagged,
        order,
        anything,
        model,
        binary,
        binary_text,
        text,
        text_limited,
        text_limited_concurrent,
        bytes_limited,
        closes,
        three,
        handled_by_reply,
        handled_by_close,
        handled_by_raise,
    ],
)
