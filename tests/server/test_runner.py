"""Starting and stopping, the drain's stages, sockets of every kind, processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import websockets

from telex.exceptions import ImproperlyConfiguredException
from telex.server import ServerStatus, Settings, run, serve
from telex.types import Receive, Scope, Send
from tests.server.apps import echo, transport_of
from tests.server.conftest import connected, echoes, running
from tests.server.process import ROOT, announced_ports, process
from tests.support.ports import free_port
from tests.support.raw import TEXT, RawClient, close_frame, frame


class Busy:
    """Echoes; a message ``work`` is answered only once ``finish`` is set. Keeps the server's status."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.working = asyncio.Event()
        self.statuses: list[ServerStatus] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.statuses.append(scope["state"]["telex.server"])
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("text") == "work":
                self.working.set()
                await self.finish.wait()
            await send({**event, "type": "websocket.send"})


async def test_the_drain_goes_in_batches_and_lets_busy_handlers_finish() -> None:
    app = Busy()
    settings = {"drain_batch": 5, "drain_interval": 0.1, "drain_timeout": 60.0}
    async with running(app, **settings) as server, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(server.port)) for _ in range(15)]
        busy = await stack.enter_async_context(connected(server.port))
        await busy.send(frame(TEXT, b"work"))
        await asyncio.wait_for(app.working.wait(), 9)
        (status,) = set(app.statuses)
        assert (status.ready, status.draining.is_set(), status.connections) == (True, False, 16)
        server.stop()

        async def closed(client: RawClient) -> None:
            got = await client.read_close()
            assert got.code == 1012
            assert 0 <= float(got.reason.removeprefix("retry-after=")) <= 0.4
            await client.send(close_frame(1012))
            assert await client.read_to_end() == b""

        await asyncio.gather(*map(closed, idle))
        assert not status.ready
        app.finish.set()
        assert (await busy.read_frame()).payload == b"work"
        await closed(busy)  # long before the drain's own limit


async def test_the_drain_closes_one_batch_in_an_interval() -> None:
    async with (
        running(Busy(), drain_batch=5, drain_interval=60.0, drain_timeout=60.0) as server,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(15)]
        server.stop()
        closing = [asyncio.create_task(client.read_close()) for client in clients]
        while sum(task.done() for task in closing) < 5:
            waiting = [task for task in closing if not task.done()]
            done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert done, "fewer than a batch were closed"
        for client, task in zip(clients, closing, strict=True):
            if task.done():
                assert task.result().code == 1012
            else:
                task.cancel()
                await asyncio.wait({task})
                await echoes(client)
        assert sum(not task.cancelled() for task in closing) == 5
        server.force_exit = True  # as a second signal does


@pytest.mark.long
async def test_handlers_that_are_busy_at_the_deadline_are_cancelled() -> None:
    app = Busy()
    async with running(app, drain_timeout=0.3, close_timeout=0.5) as server, AsyncExitStack() as stack:
        stuck, sending = [await stack.enter_async_context(connected(server.port)) for _ in range(2)]
        opening = await stack.enter_async_context(await RawClient.open(server.port))
        await opening.send(b"GET / HTTP/1.1\r\n")
        await stuck.send(frame(TEXT, b"work"))
        await sending.send(frame(TEXT, b"x" * 1000))
        await asyncio.wait_for(app.working.wait(), 9)
        server.stop()
        assert [(await client.read_close()).code for client in (stuck, sending)] == [1012, 1012]
        for client in (stuck, sending, opening):
            await client.read_to_end()


async def test_while_draining_no_connection_is_accepted() -> None:
    app = Busy()
    async with running(app, drain_delay=0.3) as server, connected(server.port) as client:
        server.stop()
        (status,) = set(app.statuses)
        await asyncio.wait_for(status.draining.wait(), 9)
        async with connected(server.port) as late:  # load balancers have not noticed yet
            await echoes(late)
            assert not status.ready
            assert (await late.read_close()).code == 1012
        assert (await client.read_close()).code == 1012
        with pytest.raises(ConnectionRefusedError):
            await RawClient.open(server.port)


@pytest.mark.program
async def test_signals() -> None:
    async with process("tests.server.apps:attackable", drain_timeout=20.0) as server:
        async with connected(server.port, "/sleep") as stuck, connected(server.port) as idle:
            server.process.send_signal(signal.SIGTERM)
            assert (await idle.read_close()).code == 1012  # the drain waits for the other
            server.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(server.process.wait(), 10)
            await stuck.read_to_end()
        assert "Task was destroyed" not in server.log()
        assert "Traceback" not in server.log()


@asynccontextmanager
async def script(code: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """A Python program, and the file that it prints to."""
    with tempfile.NamedTemporaryFile() as log:
        started = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield started, Path(log.name)
        finally:
            if started.returncode is None:
                started.kill()
            await started.wait()


async def opened(port: int) -> None:
    """Waits until something listens on the port."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with connected(port) as client:
                    await echoes(client)
                    return
            except OSError:
                await asyncio.sleep(0.05)


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Swallows every cancellation on ``/stubborn``, and starts a task that does on ``/background``."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if "STUBBORN_LIFESPAN" in os.environ:
            await asyncio.sleep(3600)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/background":
        _background.append(asyncio.create_task(swallow(), name="the user's task"))
        await echo(scope, receive, send)
    elif scope["path"] == "/stubborn":
        await receive()
        await send({"type": "websocket.accept"})
        await swallow()
    else:
        await echo(scope, receive, send)


_background: list[asyncio.Task[None]] = []


async def swallow() -> None:
    """Ignores its cancellation."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@pytest.mark.program
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
@pytest.mark.parametrize(("path", "name"), [("/stubborn", "WebSocket '/stubborn'"), ("/background", "the user's task")])
async def test_what_swallows_its_cancellation_does_not_keep_the_process(number: int, path: str, name: str) -> None:
    async with process("tests.server.test_runner:stubborn", drain_timeout=0.2, close_timeout=0.2) as server:
        async with connected(server.port, path):
            server.process.send_signal(number)
            assert await asyncio.wait_for(server.process.wait(), 13) == -number
        assert f"Draining on {signal.Signals(number).name}" in server.log()
        assert f"Draining: {name} still runs after its cancellation" in server.log()


@pytest.mark.program
async def test_two_interrupts_end_the_process_at_once() -> None:
    async with (
        process("tests.server.test_runner:stubborn", drain_timeout=3600.0) as server,
        connected(server.port, "/stubborn"),
        connected(server.port) as idle,
    ):
        server.process.send_signal(signal.SIGINT)
        assert (await idle.read_close()).code == 1012
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(server.process.wait(), 13) == -signal.SIGINT


@pytest.mark.program
async def test_a_second_signal_ends_a_shutdown_of_the_app_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUBBORN_LIFESPAN", "1")
    async with process("tests.server.test_runner:stubborn") as server:
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(13):
            while "Waiting for application shutdown" not in server.log():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), 13) == -signal.SIGTERM


@pytest.mark.program
async def test_workers_are_replaced_and_drained() -> None:
    port = free_port()
    code = f"""
from telex.server import run
if __name__ == "__main__":
    run("tests.server.test_runner:pid_app", port={port}, workers=2, drain_timeout=1.0)
"""
    async with script(code) as (parent, log_file):
        await opened(port)
        pids: set[int] = set()
        async with asyncio.timeout(20):
            while len(pids) < 2:
                pids.add(await pid_behind(port))
        victim = pids.pop()
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(20):
            while len(pids) < 2:
                pids.add(await pid_behind(port))
        assert victim not in pids
        async with connected(port) as client:
            parent.send_signal(signal.SIGTERM)
            assert (await client.read_close()).code == 1012
        assert await asyncio.wait_for(parent.wait(), 10) == 0
        log = log_file.read_text()
        assert "died with status -9" in log
        assert "Traceback" not in log


async def pid_behind(port: int) -> int:
    """Which process answers; this one where the connection died with it, or was closed by its drain."""
    try:
        async with connected(port) as client:
            await client.send(frame(TEXT, b"pid"))
            return int((await client.read_frame()).payload)
    except (OSError, EOFError, ValueError):
        return os.getpid()


async def pid_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes, and tells its process to who sends ``pid``."""
    if scope["type"] != "websocket":
        await echo(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    transport = transport_of(scope)
    while (data := await transport.receive()) is not None:
        transport.send(str(os.getpid()) if data == "pid" else data)


async def change(path: Path, text: str) -> None:
    """Writes a file again and again: uvicorn does not see what changes before it has begun to watch."""
    while True:
        await asyncio.to_thread(path.write_text, text)
        await asyncio.sleep(0.5)


@pytest.mark.program
async def test_reload_does_not_wait_for_open_sockets(tmp_path: Path) -> None:
    port, app = free_port(), tmp_path / "reloaded_app.py"
    app.write_text("from tests.server.apps import attackable as app\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from telex.server import run
if __name__ == "__main__":
    run("reloaded_app:app", port={port}, reload=True, reload_dirs=({str(tmp_path)!r},))
"""
    async with script(code) as (parent, log_file):
        await opened(port)
        async with connected(port, "/sleep") as stuck:
            changing = asyncio.create_task(change(app, "from tests.server.test_runner import pid_app as app\n"))
            assert (await stuck.read_close()).code == 1012
            changing.cancel()
        await opened(port)
        assert await pid_behind(port) not in {parent.pid, os.getpid()}
        parent.terminate()
        await asyncio.wait_for(parent.wait(), 10)
        assert "Traceback" not in log_file.read_text()


@pytest.mark.program
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_both_loops_and_both_http_parsers(loop: str, http: str) -> None:
    async with process("tests.server.apps:attackable", loop=loop, http=http) as server:
        for path in ("/", "/frame"):
            async with websockets.connect(f"ws://127.0.0.1:{server.port}{path}") as client:
                for message in ("x", "y" * 5000, b"z" * 300_000):
                    await client.send(message)
                    assert await client.recv() == message
        async with connected(server.port) as raw:
            await raw.send(frame(TEXT, b"first") + frame(3))
            assert (await raw.read_frame()).payload == b"first"
            assert (await raw.read_close()).code == 1002
            assert await raw.read_to_end() == b""
    assert "Traceback" not in server.last_log


@pytest.mark.program
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_tls(certificate: tuple[Path, Path], loop: str) -> None:
    certfile, keyfile = certificate
    trust = ssl.create_default_context(cafile=str(certfile))
    settings: dict[str, Any] = {"ssl_certfile": str(certfile), "ssl_keyfile": str(keyfile), "loop": loop}
    settings["handshake_timeout"] = 1.0
    async with process("tests.server.apps:attackable", **settings) as server:
        async with await RawClient.open(server.port) as silent:
            assert await silent.read_to_end() == b""  # the TLS handshake has the same limit
        for path in ("/", "/frame"):
            async with websockets.connect(f"wss://localhost:{server.port}{path}", ssl=trust) as client:
                for message in ("x", "y" * 5000, b"z" * 300_000):
                    await client.send(message)
                    assert await client.recv() == message
                await client.send("bad \udcff".encode(errors="surrogateescape"), text=True)
                with pytest.raises(websockets.ConnectionClosedError) as caught:
                    await client.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1007
    assert "Traceback" not in server.last_log


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", keyfile, "-out", certfile],
        check=True, capture_output=True,
    )  # fmt: skip
    return certfile, keyfile


async def unix_client(path: Path, url: str) -> websockets.ClientConnection:
    """A client of a Unix socket, once there is a server."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await websockets.unix_connect(str(path), url)
            except OSError:
                await asyncio.sleep(0.02)


@pytest.mark.program
async def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    code = f"""
from telex.server import run
run("tests.server.apps:attackable", uds={str(path)!r}, log_level="warning")
"""
    async with script(code) as (server, log_file):
        for place in ("/", "/frame"):
            async with await unix_client(path, f"ws://localhost{place}") as client:
                await client.send("through a file")
                assert await client.recv() == "through a file"
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)
        assert log_file.read_text() == ""
    assert not path.exists()


async def test_an_open_descriptor() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with running(echo, fd=listener.fileno()), connected(listener.getsockname()[1]) as client:
            await echoes(client)


async def test_serve_is_a_coroutine() -> None:
    port = free_port()
    task = asyncio.create_task(serve(echo, port=port, log_format="none"))
    await opened(port)
    async with connected(port) as client:
        task.cancel()
        assert (await client.read_close()).code == 1012
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_app_that_other_processes_cannot_import() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="module:attribute"):
        run(echo, workers=2, environ={})


def test_settings_come_from_the_environment_and_code_wins() -> None:
    environ = {
        "TELEX_PORT": "9000",
        "TELEX_PING_INTERVAL": "none",
        "TELEX_DEFLATE": "off",
        "TELEX_HANDSHAKE_TIMEOUT": "2.5",
        "TELEX_RELOAD_DIRS": "a:b",
        "TELEX_LOG_FORMAT": "json",
        "TELEX_HOST": "0.0.0.0",
    }
    settings = Settings.read({"host": "::1"}, environ)
    assert settings.host == "::1"
    assert (settings.port, settings.ping_interval, settings.deflate) == (9000, None, False)
    assert (settings.handshake_timeout, settings.reload_dirs, settings.log_format) == (2.5, ("a", "b"), "json")
    assert settings.max_message_size == 1 << 20


@pytest.mark.parametrize(
    ("name", "text"), [("PORT", "many"), ("DEFLATE", "maybe"), ("PORT", "none"), ("LOG_FORMAT", "xml")]
)
def test_settings_that_do_not_fit_are_named(name: str, text: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=f"TELEX_{name} is '{text}'"):
        Settings.read({}, {f"TELEX_{name}": text})


def test_unknown_variables_of_the_environment_are_named(caplog: pytest.LogCaptureFixture) -> None:
    Settings.read({}, {"TELEX_PROT": "1", "TELEX_SOMETHING_ELSE": "2", "TELEX_PORT": "3", "OTHER": "4"})
    assert [record.getMessage() for record in caplog.records] == [
        "the environment variable TELEX_PROT is ignored: did you mean TELEX_PORT?",
        "the environment variable TELEX_SOMETHING_ELSE is ignored: no setting has that name",
    ]


def test_settings_that_do_not_exist_are_named() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"no server setting 'prot'.*port"):
        Settings.read({"prot": 1}, {})


def test_every_setting_can_be_read_from_the_environment() -> None:
    texts = {"bool": "on", "int": "1", "float": "1", "str": "x", "tuple[str, ...]": "x"}
    for field in fields(Settings):
        kind = str(field.type).removesuffix(" | None")
        text = "/x" if field.name.endswith("_path") else texts.get(kind) or kind.split("'")[1]
        assert getattr(Settings.read({}, {f"TELEX_{field.name.upper()}": text}), field.name) is not None


@pytest.mark.program
async def test_json_logs() -> None:
    app = "tests.server.apps:attackable"
    async with process(app, log_format="json") as server, connected(server.port, "/%0Aforged?x=%1b"):
        pass
    lines = [line for line in server.last_log.splitlines() if not line.startswith("listening")]
    records = [json.loads(line) for line in lines]
    assert {"time", "level", "logger", "message"} <= records[0].keys()
    (accepted,) = [record for record in records if "[accepted]" in record["message"]]
    assert "/%0Aforged?x=%1b" in accepted["message"]


def test_ports_are_announced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("noise\nlistening 123\n")
    assert announced_ports(log) == [123]
