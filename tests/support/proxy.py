"""A TCP proxy between a program and its server, which can be made as bad as networks are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class TcpProxy:
    """Forwards to a port of this machine; ``target`` may be changed for connections to come.

    ``up`` is from clients to the server, ``down`` the other way.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        self.delay = 0.0
        """Seconds that each piece is late."""
        self.rate: float | None = None
        """Bytes a second from the server to the clients, in all."""
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._held: set[int] = set()
        self._released = asyncio.Event()
        self._pairs: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._turn = asyncio.Lock()
        self.heal()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._pairs:
            task.cancel()
        if self._pairs:
            await asyncio.wait(self._pairs)

    def url(self, url: str) -> str:
        """``url`` by way of the proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def black_hole(self, *directions: str) -> None:
        """Swallow what is sent ``up`` or ``down``, both by default, without closing anything."""
        for direction in directions or ("up", "down"):
            self._open[direction].clear()

    def slow(self, delay: float, rate: float | None) -> None:
        """Set :attr:`delay` and :attr:`rate`."""
        self.delay, self.rate = delay, rate

    def hold(self, number: int) -> None:
        """Let nothing through on one connection; they are counted from 0."""
        self._held.add(number)

    def heal(self) -> None:
        """Let everything through again."""
        self.delay, self.rate = 0.0, None
        self._held.clear()
        self._released.set()
        self._released = asyncio.Event()
        for event in self._open.values():
            event.set()

    def cut(self) -> None:
        """End all connections at once, with what is on its way."""
        for writers in self._pairs.values():
            for writer in writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        number, self.accepted = self.accepted, self.accepted + 1
        self._pairs[task] = (writer,)
        try:
            await self._open["up"].wait()
            there, to_there = await asyncio.open_connection("127.0.0.1", self.target)
            self._pairs[task] = (writer, to_there)
            pumps = [
                asyncio.ensure_future(self._pump(reader, to_there, "up", number, self._pass)),
                asyncio.ensure_future(self._pump(there, writer, "down", number, self._slowly)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            # asyncio's own callback for the end of a client in Python 3.11 cannot have it cancelled.
            pass
        finally:
            for each in self._pairs.pop(task):
                each.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
        number: int,
        pace: Callable[[bytes], Awaitable[None]],
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._open[direction].wait()
            while number in self._held:
                await self._released.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            await pace(data)
            writer.write(data)
            await writer.drain()

    async def _pass(self, data: bytes) -> None:
        """As fast as it goes."""

    async def _slowly(self, data: bytes) -> None:
        if self.rate is not None:
            # One after another: they share one line.
            async with self._turn:
                await asyncio.sleep(len(data) / self.rate)
