"""``python -m benchmarks.multiplex``: routes on shared sockets beside sockets of their own, on Telex's server.

It prints the resident memory of an idle direct connection that speaks telex.v1 and of an idle route, that of one socket
with 100 routes and of 20 sockets, and the server's CPU time of a call on each, with a sync and an async listener. The
smallest of the rounds counts; both ways take turns. Buffers of the kernel are not in these figures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence

from benchmarks.certificate import Certificate, made
from benchmarks.processes import Server, cores, listening, raise_descriptor_limit, running, wait_for
from benchmarks.wire import Connection, client_frame, frames
from telex import Multiplex, Telex, websocket_listener

ROUTES = 100
OFFER = "Sec-WebSocket-Protocol: telex.v1\r\n"
CALLS = 3000
WAYS = ("/sync", "/async")


@websocket_listener("/sync")
def answer_at_once(data: str) -> str:
    return data


@websocket_listener("/async")
async def answer(data: str) -> str:
    return data


app = Telex([answer_at_once, answer, Multiplex("/socket", routes=Multiplex.ALL)])


class Caller:
    """A client of one socket."""

    def __init__(self, server: Server, path: str) -> None:
        self._connection = Connection(server.port, path, more=OFFER, context=server.context)
        self._connection.shake_hands()
        self.c = 0
        self._id = 0
        self._read()

    def _read(self) -> bytes:
        connection = self._connection
        while True:
            for _, _, payload, end in frames(connection.unread):
                connection.unread = connection.unread[end:]
                return payload
            connection.unread = connection.without_control_frames(connection.unread + connection.read())

    def _ask(self, text: str) -> bytes:
        self._connection.send(client_frame(text.encode()))
        return self._read()

    def open(self, path: str) -> None:
        """Open one more route."""
        self.c += 1
        opened = self._ask(f'{{"type":"open","c":{self.c},"path":"{path}"}}')
        if not opened.startswith(b'{"type":"opened"'):
            raise RuntimeError(f"the route was refused: {opened!r}")

    def call(self) -> None:
        """Make a call, on the last route if there is one."""
        self._id += 1
        route = f'"c":{self.c},' if self.c else ""
        reply = self._ask(f'{{"type":"call",{route}"id":{self._id},"data":"a message of a few words"}}')
        if not reply.startswith(b'{"type":"reply"'):
            raise RuntimeError(f"no reply: {reply!r}")

    def drop(self) -> None:
        """Leave."""
        self._connection.drop()


@contextlib.contextmanager
def serving(core: int | None, certificate: Certificate | None = None) -> Iterator[Server]:
    """The server, in a process of its own."""
    files = [str(certificate.certificate), str(certificate.key)] if certificate else []
    with listening() as listener:
        command = ["-m", "benchmarks.multiplex", "--serve", str(listener.fileno()), str(core), *files]
        with running(command, listener, certificate) as server:
            wait_for(server)
            yield server


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    server_core, load_core = cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    raise_descriptor_limit()
    with serving(server_core) as server:
        print(*costs(server, options.rounds), sep="\n")
    with serving(server_core) as server:
        print(*memory(server), sep="\n")
    with made() as certificate, serving(server_core, certificate) as server:
        print("with TLS:", *memory(server), sep="\n")


def costs(server: Server, rounds: int, calls: int = CALLS) -> Sequence[str]:
    """Microseconds of a call on each way."""
    lines = []
    for path in WAYS:
        direct, shared = Caller(server, path), Caller(server, "/socket")
        shared.open(path)
        each: list[tuple[float, float]] = [
            (_cost(server, direct, calls), _cost(server, shared, calls)) for _ in range(rounds)
        ]
        own, route = (min(figures) for figures in zip(*each, strict=True))
        direct.drop()
        shared.drop()
        lines.append(f"a call, {path[1:]} listener: {own:.2f} us direct, {route:.2f} us on a route: {route / own:.2f}")
    return lines


def _cost(server: Server, caller: Caller, calls: int) -> float:
    before = server.cpu_seconds()
    for _ in range(calls):
        caller.call()
    return (server.cpu_seconds() - before) / calls * 1e6


def memory(server: Server, sockets: int = 10) -> Sequence[str]:
    """KiB of idle connections and routes."""
    kept = [_direct(server), *(_shared(server) for _ in range(2))]

    def grown(count: int, connect: Callable[[Server], Caller]) -> float:
        """KiB of each; all stay open, because memory that others have left would be used again."""
        before = server.resident_bytes()
        kept.extend(connect(server) for _ in range(count))
        return (server.resident_bytes() - before) / count / 1024

    direct = grown(40 * sockets, _direct)
    whole = grown(sockets, _shared)
    empty = grown(10 * sockets, lambda server: Caller(server, "/socket"))
    for each in kept:
        each.drop()
    return [
        f"an idle direct connection: {direct:.1f} KiB; an idle route: {(whole - empty) / ROUTES:.1f} KiB",
        f"{ROUTES} routes on one socket: {whole:.0f} KiB; 20 direct connections: {20 * direct:.0f} KiB",
    ]


def _direct(server: Server) -> Caller:
    caller = Caller(server, "/async")
    caller.call()
    return caller


def _shared(server: Server) -> Caller:
    caller = Caller(server, "/socket")
    for _ in range(ROUTES):
        caller.open("/async")
        caller.call()
    return caller


def serve(descriptor: str, core: str, certificate: str | None = None, key: str | None = None) -> None:
    """Run Telex's WebSockets under uvicorn on an inherited socket."""
    import uvicorn

    if core != "None":
        os.sched_setaffinity(0, {int(core)})
    config = uvicorn.Config(
        app,
        ws="telex.server:WebSocketProtocol",
        loop="uvloop",
        http="httptools",
        log_level="error",
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
