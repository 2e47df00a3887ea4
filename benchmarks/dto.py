"""``python -m benchmarks.dto``: what a DTO adds to a typed echo, on the message path alone; nanoseconds a message.

For each kind of model: an echo without a DTO, one whose DTO renames and excludes fields both ways, and Litestar's
listener with the same DTO. A made-up ``receive`` hands over the messages, and ``send`` checks the replies. The apps
take turns; the smallest figure of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import litestar
import litestar.dto
import msgspec
import pydantic
from litestar.handlers.websocket_handlers import websocket_listener as litestar_listener
from litestar.plugins.pydantic import PydanticDTO as LitestarPydanticDTO

from telex import Telex, websocket_listener
from telex.dto import DataclassDTO, DTOConfig, MsgspecDTO, PydanticDTO

OPTIONS: dict[str, Any] = {"rename_strategy": "camel", "exclude": {"internal_note"}}


class StructAddress(msgspec.Struct):
    street_name: str
    house_number: int


class StructUser(msgspec.Struct):
    user_name: str
    user_age: int
    address: StructAddress
    internal_note: str = ""


@dataclass
class DataclassAddress:
    street_name: str
    house_number: int


@dataclass
class DataclassUser:
    user_name: str
    user_age: int
    address: DataclassAddress
    internal_note: str = ""


class PydanticAddress(pydantic.BaseModel):
    street_name: str
    house_number: int


class PydanticUser(pydantic.BaseModel):
    user_name: str
    user_age: int
    address: PydanticAddress
    internal_note: str = ""


SCOPE: dict[str, Any] = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"127.0.0.1")],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
    "subprotocols": [],
    "extensions": {},
}
PLAIN = '{"user_name":"Ada","user_age":36,"address":{"street_name":"Main","house_number":3},"internal_note":""}'
RENAMED = '{"userName":"Ada","userAge":36,"address":{"streetName":"Main","houseNumber":3}}'


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model, and the DTOs for it."""

    model: Any
    dto: Any
    litestar_dto: Any

    def apps(self) -> dict[str, tuple[Any, str]]:
        """Each app, and the message that it echoes."""
        config = DTOConfig(**OPTIONS)
        theirs = litestar.dto.DTOConfig(**OPTIONS)
        return {
            "without a DTO": (self._telex(), PLAIN),
            "with a DTO": (self._telex(dto=self.dto[Annotated[self.model, config]]), RENAMED),
            "Litestar with a DTO": (self._litestar(self.litestar_dto[Annotated[self.model, theirs]]), RENAMED),
        }

    def _telex(self, **options: Any) -> Telex:
        return Telex([websocket_listener("/", **options)(self._echo())])

    def _litestar(self, dto: Any) -> litestar.Litestar:
        return litestar.Litestar(
            [litestar_listener("/", dto=dto)(self._echo())], openapi_config=None, logging_config=None
        )

    def _echo(self) -> Callable[..., Any]:
        async def echo(data: Any) -> Any:
            return data

        echo.__annotations__ = {"data": self.model, "return": self.model}
        return echo


KINDS = {
    "msgspec": Kind(StructUser, MsgspecDTO, litestar.dto.MsgspecDTO),
    "dataclass": Kind(DataclassUser, DataclassDTO, litestar.dto.DataclassDTO),
    "pydantic": Kind(PydanticUser, PydanticDTO, LitestarPydanticDTO),
}


async def nanoseconds(app: Any, message: str, count: int) -> float:
    """What one message took, of so many on one connection."""
    events = itertools.chain(
        [{"type": "websocket.connect"}],
        itertools.repeat({"type": "websocket.receive", "text": message}, count),
        itertools.repeat({"type": "websocket.disconnect", "code": 1000, "reason": ""}),
    )
    times: list[int] = []

    async def receive() -> Any:
        return next(events)

    async def send(event: Any) -> None:
        if event["type"] == "websocket.send":
            if event["text"] != message:
                raise RuntimeError(f"expected {message!r}, got {event!r}")
            times.append(time.perf_counter_ns())

    gc.collect()
    gc.disable()
    try:
        await app({**SCOPE, "state": {}}, receive, send)
    finally:
        gc.enable()
    if len(times) != count:
        raise RuntimeError(f"{count} messages had {len(times)} replies")
    return (times[-1] - times[0]) / (count - 1)


async def measure(kind: Kind, messages: int, rounds: int) -> dict[str, float]:
    """The smallest figure of each app."""
    apps = kind.apps()
    best = dict.fromkeys(apps, float("inf"))
    for _ in range(rounds):
        for name, (app, message) in apps.items():
            best[name] = min(best[name], await nanoseconds(app, message, messages))
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each kind of model."""
    options = argparse.ArgumentParser("python -m benchmarks.dto", description=__doc__)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--messages", type=int, default=2_000, help="in one measurement (2,000)")
    options.add_argument("--rounds", type=int, default=40)
    given = options.parse_args(arguments)
    for name in given.kinds:
        best = asyncio.run(measure(KINDS[name], given.messages, given.rounds))
        first = best["without a DTO"]
        print(f"\n| {name}, typed echo | ns/message | |\n|---|---:|---:|")
        for app, figure in best.items():
            print(f"| {app} | {figure:.0f} | {figure / first:.2f} × |")


if __name__ == "__main__":
    main()
