"""Random histories of one socket: whatever a client does, each route has one first and one final frame."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener, websocket_stream
from telex.multiplex import opening
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import Shared, joined
from tests.support.leaks import no_leaks
from tests.support.live import serving


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket_listener("/slow", max_concurrency=3)
async def slow(data: str, socket: WebSocket) -> str:
    if data == "ask":
        return str(await socket.call("?", str, timeout=0.05))
    if data == "close":
        await socket.close(4005)
    await asyncio.sleep(0.002)
    return data


@websocket_stream("/ticks")
async def ticks() -> AsyncGenerator[str, None]:
    for number in range(30):
        yield str(number)


@websocket("/raw")
async def raw(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def no(_: WebSocket, __: object) -> bool:
    return False


@websocket_listener("/no", guards=[no])
async def refused(data: str) -> None: ...


APP = Telex([echo, slow, ticks, raw, refused, Multiplex("/socket", routes=Multiplex.ALL, max_routes=10)])
PATHS = ("/echo", "/slow", "/ticks", "/raw", "/no", "/none")


class Player:
    """Plays one history, and holds the frames against it."""

    def __init__(self, shared: Shared, seed: int) -> None:
        self.shared = shared
        self.random = random.Random(seed)
        self.ids: Counter[int] = Counter()
        self.frames: dict[int, list[Any]] = {}
        self.finals = 0

    async def play(self, steps: int) -> None:
        for _ in range(steps):
            await self._step()
        for c in range(1, self.shared.highest + 1):
            await self.shared.send({"type": "close", "c": c})
        while self.finals < self.shared.highest:
            await self._read()

    async def _step(self) -> None:
        chance, c = self.random.random(), self.random.randint(1, max(1, self.shared.highest))
        if chance < 0.15 or not self.shared.highest:
            await self.shared.ask_open(self.random.choice(PATHS), credit=self.random.randint(0, 20))
        elif chance < 0.5:
            self.ids[c] += 1
            data = self.random.choice(("x", "ask", "close", "y" * 1000))
            await self.shared.send({"type": "call", "c": c, "id": self.ids[c], "data": data})
        elif chance < 0.6:
            await self.shared.send({"type": "notify", "c": c, "data": "x"})
        elif chance < 0.7:
            await self.shared.send({"type": "cancel", "c": c, "id": max(1, self.ids[c])})
        elif chance < 0.85:
            await self.shared.send({"type": "credit", "c": c, "n": self.random.randint(1, 5)})
        elif chance < 0.92:
            await self.shared.send({"type": "close", "c": c, "code": 4000})
        else:
            await self.shared.send({"type": "ping"})
            while await self._read() != "pong":
                pass

    async def _read(self) -> str:
        found = await self.shared.receive()
        kind, c = str(found["type"]), found.get("c")
        if kind == "pong":
            return kind
        assert c is not None, found
        before = self.frames.setdefault(c, [])
        assert not before or before[-1]["type"] not in {"denied", "closed"}, (before[-1], found)
        assert (kind in {"opened", "denied", "closed"}) if not before else kind != "opened", (before, found)
        before.append(found)
        self.finals += kind in {"denied", "closed"}
        return kind

    def check(self) -> None:
        """No call was answered twice, or before it was made."""
        for c, frames in self.frames.items():
            answered = Counter(found["id"] for found in frames if found["type"] in {"reply", "error"} and "id" in found)
            assert all(count == 1 and number <= self.ids[c] for number, count in answered.items()), (c, answered)


@pytest.mark.parametrize("seed", range(6))
async def test_each_route_of_a_history_has_one_first_and_one_final_frame(
    kind: ServerKind, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "DENIAL_PAUSE", 0.01)
    async with serving(APP, kind) as running, no_leaks():
        async with joined(running) as shared:
            player = Player(shared, seed)
            async with asyncio.timeout(60):
                await player.play(400)
            player.check()
        assert not APP.connections
