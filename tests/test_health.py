"""The probes: what ``/health`` and ``/ready`` answer, on Telex's server and on others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from telex import Channels, Telex, websocket_listener
from telex.exceptions import ImproperlyConfiguredException
from telex.health import Health
from telex.server import Settings
from telex.testing import AsyncTestClient
from telex.types import ASGIApp
from tests.channels.brokers import Nats
from tests.channels.conftest import until
from tests.contract.servers import ServerKind
from tests.server.conftest import running
from tests.support.programs import TELEX, program

TELEX_SERVER = ServerKind("telex")
STOCK = ServerKind("uvicorn-websockets")

ALL_TRUE = {"accepting": True, "not_draining": True}


@websocket_listener("/echo")
def echo(data: str) -> str:
    return data


def http(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)


async def probe(port: int, path: str = "/ready") -> tuple[int, Any]:
    """The status and the JSON of one probe, on a connection of its own."""
    async with http(port) as client:
        answer = await client.get(path)
        return answer.status_code, answer.json()


@pytest.mark.parametrize(
    "kind", [TELEX_SERVER, pytest.param(STOCK, marks=pytest.mark.stock)], ids=lambda kind: kind.name
)
async def test_a_running_app_is_alive_and_ready(kind: ServerKind) -> None:
    app = Telex([echo], plugins=[Health(), Channels("memory://", channels=["news"])])
    async with kind.loop(app) as server:
        assert await probe(server.port, "/health") == (200, {"alive": True})
        assert await probe(server.port) == (200, {"ready": True, "checks": {**ALL_TRUE, "channels": True}})
        async with http(server.port) as client:
            assert (await client.head("/ready")).status_code == 200
            refused = await client.post("/ready")
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
            assert (await client.get("/ready/")).status_code == 404
            assert (await client.get("/echo")).status_code == 426


@pytest.mark.broker
@pytest.mark.stock
async def test_an_app_that_has_lost_its_broker_is_not_ready_and_says_why() -> None:
    broker = Nats()
    broker.start()
    try:
        hub = Channels(broker.url, channels=["news"])
        app = Telex([echo], plugins=[hub, Health()])
        async with STOCK.loop(app) as server:
            assert (await probe(server.port))[0] == 200
            broker.kill()
            await until(lambda: not hub.is_ready)
            assert await probe(server.port) == (503, {"ready": False, "checks": {**ALL_TRUE, "channels": False}})
            assert (await probe(server.port, "/health"))[0] == 200
            broker.start()
            await until(lambda: hub.is_ready)
            assert (await probe(server.port))[0] == 200
    finally:
        broker.remove()


@pytest.mark.stock
async def test_an_app_that_drains_its_connections_is_not_ready() -> None:
    app = Telex([echo], plugins=[Health()])
    frames = [Subprotocol("telex.v1")]
    async with STOCK.loop(app) as server:
        async with connect(server.url("/echo"), subprotocols=frames, proxy=None):
            await until(lambda: len(app.connections) == 1)
            draining = asyncio.create_task(app.connections.drain(within=60))  # as long as the told client stays
            await until(lambda: app.connections.is_draining)
            assert await probe(server.port) == (503, {"ready": False, "checks": {**ALL_TRUE, "not_draining": False}})
        assert await draining == 1
        assert (await probe(server.port))[0] == 200


async def test_a_server_that_drains_is_not_ready_but_alive() -> None:
    app = Telex([echo], plugins=[Health()])
    async with running(app, drain_delay=20.0, drain_timeout=20.0) as server, http(server.port) as client:
        assert (await client.get("/ready")).status_code == 200
        server.stop()
        await until(server.status.draining.is_set)
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["checks"]) == (503, {**ALL_TRUE, "not_draining": False})
        assert (await client.get("/health")).status_code == 200
        server.force_exit = True


async def test_the_app_decides_what_else_makes_it_ready() -> None:
    flags = {"model": False}
    app = Telex([echo], plugins=[Health(checks={"model": lambda: flags["model"]})])
    async with AsyncTestClient(app) as client:
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["checks"]["model"]) == (503, False)
        flags["model"] = True
        assert (await client.get("/ready")).status_code == 200
        assert answer.headers["cache-control"] == "no-store"


async def test_paths_are_the_apps_and_the_http_app_gets_the_rest() -> None:
    site = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("site"))])
    app = Telex([echo], http=site, plugins=[Health("/_live", ready_path=None)])
    async with AsyncTestClient(app) as client:
        assert (await client.get("/_live")).json() == {"alive": True}
        assert (await client.get("/ready")).text == "site"


async def test_a_mounted_app_answers_under_its_prefix_once_its_lifespan_runs() -> None:
    app = Telex([echo], plugins=[Health()])

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> Any:
        async with app.lifespan():
            yield

    async with AsyncTestClient(Starlette(routes=[Mount("/live", app)], lifespan=lifespan)) as client:
        assert (await client.get("/live/ready")).json() == {"ready": True, "checks": ALL_TRUE}
    async with AsyncTestClient(Starlette(routes=[Mount("/live", app)])) as client:
        answer = await client.get("/live/ready")
        assert (answer.status_code, answer.json()["checks"]["accepting"]) == (503, False)


@pytest.mark.parametrize("paths", [("health", "/ready"), ("/same", "/same")])
def test_paths_that_cannot_be_are_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"begin it with '/'|give two paths"):
        Telex([echo], plugins=[Health(paths[0], ready_path=paths[1])])
    with pytest.raises(ImproperlyConfiguredException, match=r"begin it with '/'|give two paths"):
        Settings(health_path=paths[0], ready_path=paths[1])


# -- the settings of Telex's server, for any app


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app of somebody else, without a lifespan."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await PlainTextResponse("theirs")(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "checks"),
    [
        (Telex([echo], plugins=[Channels("memory://", channels=["news"])]), {**ALL_TRUE, "channels": True}),
        (plain, ALL_TRUE),
    ],
    ids=["telex", "other"],
)
async def test_the_server_answers_for_any_app(app: ASGIApp, checks: dict[str, bool]) -> None:
    settings = {"health_path": "/health", "ready_path": "/ready", "root_path": "/live", "drain_delay": 20.0}
    async with running(app, **settings, drain_timeout=20.0) as server, http(server.port) as client:
        assert (await client.get("/health")).json() == {"alive": True}
        assert (await client.get("/ready")).json() == {"ready": True, "checks": checks}
        server.stop()
        await until(server.status.draining.is_set)
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()["checks"]) == (503, {**checks, "not_draining": False})
        server.force_exit = True


SERVICE = """
from telex import Telex, websocket_listener

@websocket_listener("/")
def echo(data: str) -> str:
    return data

app = Telex([echo])
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager, as systemd opens it for ``Type=notify``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


@pytest.mark.program
@pytest.mark.parametrize(
    "workers", [(), pytest.param(("--workers", "2"), marks=pytest.mark.slow)], ids=["one", "workers"]
)
def test_a_service_manager_is_told_of_start_and_stop(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    options = ("--port", "0", "--ready-path", "/ready", *workers)
    with program(TELEX, "run", "service:app", *options, cwd=tmp_path) as service:
        assert manager.recv(100) == b"READY=1"
        answer = httpx.get(service.url("/ready", "http"), trust_env=False, timeout=10)
        assert answer.json() == {"ready": True, "checks": ALL_TRUE}
        service.process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        service.wait(30)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_an_abstract_socket_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from telex.server.systemd import notify

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # Linux chooses an abstract address
        name: bytes = listening.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
        notify("READY=1")
        listening.settimeout(10)
        assert listening.recv(100) == b"READY=1"
        monkeypatch.delenv("NOTIFY_SOCKET")
        notify("READY=1")
