"""The private and undocumented names that Telex uses: a release that changes one fails here, and no use is unlisted.

``docs/architecture.md`` has the table. The names of picows and of the brokers' clients have tests beside their users.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import ssl
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from pydantic_core import SchemaValidator, core_schema
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

import telex
from telex.server.http import GuardedHTTP
from telex.types import Receive, Scope, Send
from tests.docs.pages import ROOT, table
from tests.server.apps import answer_http
from tests.server.fuzz.harness import Pipe

SOURCE = ROOT / "src" / "telex"
LIBRARIES = ("uvicorn", "picows", "nats", "redis", "psycopg")
DOCUMENTED = {*vars(asyncio.Protocol), *vars(asyncio.BufferedProtocol), *vars(asyncio.BaseProtocol)}
PUBLIC_BASES = ("WSListener",)
HEAD = b"GET /path HTTP/1.1\r\nHost: a\r\nX-Name: Value\r\n\r\n"


def listed() -> set[tuple[str, str]]:
    """File and last part of each name in the table."""
    rows = table("architecture.md", "Private names we use")
    return {(file, part) for names, file, *_ in rows for name in names.split(",") for part in re.findall(r"\w+", name)}


# What the code uses


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


@cache
def own_names() -> frozenset[str]:
    """Every name that our own code defines anywhere: what else has an underscore is somebody else's."""
    found: set[str] = set()
    for node in (node for tree in trees().values() for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                found.update(str(each.value) for each in ast.walk(value) if isinstance(each, ast.Constant))
    return frozenset(found)


def is_private(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_[a-zA-Z]\w*(?<!_)", name) is not None


def foreign_names(tree: ast.Module, ours: frozenset[str]) -> Iterator[str]:
    """The private names in a module that our code does not define."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)) if is_private(name) and name not in ours:
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]):
                if is_private(name) and name != "_state":  # `_state` is ours: an attribute of our own property
                    yield str(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                module = getattr(node, "module", None) or ""
                parts = [part for each in names for part in f"{module}.{each.name}".split(".")]
                if not module.startswith("telex"):
                    yield from (part for part in parts if is_private(part))


def classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(telex.__path__, "telex."):
        if not module.name.endswith("__main__"):
            members = vars(importlib.import_module(module.name)).values()
            yield from (each for each in members if isinstance(each, type) and each.__module__ == module.name)


def inherited_names(subject: type) -> set[str]:
    """The names of a library's class that a subclass of ours overrides, reads or calls through ``self``."""
    bases = [base for base in subject.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
    bases = [base for base in bases if base.__name__ not in PUBLIC_BASES]
    if subject is GuardedHTTP:  # a mixin: its bases come with the classes that use it
        bases = [H11Protocol, HttpToolsProtocol]
    if not bases:
        return set()
    ours = [base for base in subject.__mro__ if base.__module__.startswith("telex.")]
    defined = {name for base in ours for name in vars(base)}
    for base in ours:
        nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base))))
        defined |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    found = {name for name in vars(subject) if any(name in vars(base) for base in bases)}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(subject)))):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name not in defined:
                found.add(name)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                found.add(name)
    return {name for name in found if not name.startswith("__")} - DOCUMENTED


def file_of(subject: type) -> str:
    return Path(inspect.getfile(subject)).relative_to(SOURCE).as_posix()


@pytest.mark.long
def test_every_private_name_of_a_library_has_a_row() -> None:
    used = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path, tree in trees().items()
        for name in foreign_names(tree, own_names())
    }
    assert used - listed() == set()
    assert used


def test_every_inherited_name_of_a_library_has_a_row() -> None:
    used = {(file_of(subject), name) for subject in classes() for name in inherited_names(subject)}
    assert used - listed() == set()
    assert ("server/http.py", "cycle") in used


@pytest.mark.parametrize(
    "source",
    [
        "connection._secret",
        "getattr(connection, '_secret', None)",
        "make(_secret=True)",
        "from library import _secret",
        "from library._secret import name",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(foreign_names(ast.parse(source), own_names())) == ["_secret"]


# What the libraries have


class Connected:
    """A uvicorn protocol that has been connected and is in the middle of a request."""

    def __init__(self, kind: type[Any]) -> None:
        self.answer = asyncio.Event()
        self.config = uvicorn.Config(self, proxy_headers=False, log_config=None)
        self.config.load()
        self.state = ServerState()
        self.pipe = Pipe()
        self.protocol: Any = kind(self.config, self.state, {"key": "value"}, asyncio.get_running_loop())
        self.pipe.set_protocol(self.protocol)
        self.protocol.connection_made(self.pipe)
        self.started = asyncio.Event()
        self.completed: list[bool] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started.set()
        await self.answer.wait()
        await answer_http(send)


@pytest.mark.parametrize("kind", [H11Protocol, HttpToolsProtocol])
async def test_a_protocol_of_uvicorn_has_its_state_and_its_cycle(kind: type[Any]) -> None:
    connected = Connected(kind)
    protocol, state = connected.protocol, connected.state
    assert protocol.config is connected.config
    assert protocol.server_state is state
    assert protocol.connections is state.connections
    assert protocol in state.connections
    assert protocol.app_state == {"key": "value"}
    assert protocol.loop is asyncio.get_running_loop()
    assert protocol.transport is connected.pipe
    assert vars(protocol)["cycle"] is None
    assert callable(protocol.flow.pause_reading)
    assert callable(protocol.flow.resume_reading)
    assert isinstance(state.default_headers, list)
    connected.pipe.feed(HEAD)
    async with asyncio.timeout(9):
        await connected.started.wait()
    assert protocol.headers == [(b"host", b"a"), (b"x-name", b"Value")]
    assert protocol.scope["http_version"] == "1.1"
    assert protocol.scope["method"] == "GET"
    cycle = protocol.cycle
    assert (cycle.response_complete, cycle.disconnected, cycle.more_body) == (False, False, False)
    assert len(state.tasks) == 1
    connected.answer.set()
    async with asyncio.timeout(9):
        await asyncio.gather(*state.tasks)
    assert cycle.response_complete is True
    connected.pipe.abort()


@pytest.mark.parametrize("kind", [H11Protocol, HttpToolsProtocol])
async def test_a_protocol_of_uvicorn_asks_its_methods_for_an_upgrade(kind: type[Any]) -> None:
    upgrades: list[tuple[object, ...]] = []
    asked: list[bytes | None] = []

    class Asking(kind):  # type: ignore[misc]
        def _get_upgrade(self) -> bytes | None:
            asked.append(super()._get_upgrade())
            return asked[-1]

        def handle_websocket_upgrade(self, *event: object) -> None:
            upgrades.append(event)

        def _unsupported_upgrade_warning(self) -> None:
            upgrades.append(("unsupported",))

    connection = b"\r\nConnection: Upgrade\r\nUpgrade: "
    for name in (b"websocket", b"other"):
        Connected(Asking).pipe.feed(HEAD.replace(b"\r\nX-Name: Value", connection + name))
    assert set(asked) == {b"websocket", b"other"}
    assert [len(event) for event in upgrades] == [1 if kind is H11Protocol else 0, 1]
    assert upgrades[1] == ("unsupported",)


def test_a_protocol_of_uvicorn_has_the_methods_that_are_called_or_overridden() -> None:
    for kind in (H11Protocol, HttpToolsProtocol):
        assert parameters(kind.on_response_complete) == ["self"]
        assert parameters(kind._unset_keepalive_if_required) == ["self"]
        assert parameters(kind.__init__)[1:5] == ["config", "server_state", "app_state", "_loop"]
    assert parameters(HttpToolsProtocol.on_header) == ["self", "name", "value"]
    assert parameters(HttpToolsProtocol.on_body) == ["self", "body"]
    assert parameters(HttpToolsProtocol.on_message_begin) == ["self"]
    assert parameters(HttpToolsProtocol.send_400_response) == ["self", "msg"]


async def test_the_protocols_have_their_parsers() -> None:
    over_h11, over_httptools = Connected(H11Protocol).protocol, Connected(HttpToolsProtocol)
    assert over_h11.conn.trailing_data == (b"", False)
    over_httptools.pipe.feed(HEAD)
    assert over_httptools.protocol.url == b"/path"
    assert over_httptools.protocol.parser.get_method() == b"GET"
    over_httptools.answer.set()
    async with asyncio.timeout(9):
        await asyncio.gather(*over_httptools.state.tasks)


def test_the_server_of_uvicorn_has_its_stages() -> None:
    server = uvicorn.Server(uvicorn.Config("app", log_config=None))
    stages: dict[str, list[str]] = {
        "serve": ["self", "sockets"],
        "startup": ["self", "sockets"],
        "main_loop": ["self"],
        "on_tick": ["self", "counter"],
        "shutdown": ["self", "sockets"],
    }
    for name, expected in stages.items():
        method = getattr(uvicorn.Server, name)
        assert inspect.iscoroutinefunction(method)
        assert parameters(method) == expected
    assert parameters(uvicorn.Server.run) == ["self", "sockets"]
    assert parameters(uvicorn.Server.handle_exit) == ["self", "sig", "frame"]
    assert isinstance(server.config, uvicorn.Config)
    assert isinstance(server.server_state.connections, set)
    assert isinstance(server.server_state.tasks, set)
    source = inspect.getsource(uvicorn.Server)
    for name in ("servers", "lifespan"):
        assert f"self.{name} = " in source or f"self.{name}: " in source


def test_uvicorn_starts_a_tls_server_through_the_loops_attribute() -> None:
    source = inspect.getsource(uvicorn.Server.startup)
    assert "loop = asyncio.get_running_loop()" in source
    assert "loop.create_server(" in source
    assert "ssl_handshake_timeout" not in source


async def test_the_method_of_a_loop_can_be_replaced_by_an_attribute() -> None:
    loop: Any = asyncio.get_running_loop()
    called: list[dict[str, object]] = []

    async def listen(**options: object) -> None:
        called.append(options)

    loop.create_server = listen
    try:
        await loop.create_server(ssl=ssl.create_default_context)
    finally:
        vars(loop).pop("create_server")
    assert len(called) == 1
    assert "ssl_handshake_timeout" in inspect.signature(loop.create_server).parameters


def test_the_configuration_of_uvicorn_has_what_the_servers_reads() -> None:
    config = uvicorn.Config("app", uds="/socket", proxy_headers=True, log_config=None)
    assert (config.uds, config.proxy_headers, config.loaded) == ("/socket", True, False)
    assert parameters(uvicorn.Config.load) == ["self"]


def test_a_validator_of_pydantic_can_be_built_without_the_models_own() -> None:
    validator = SchemaValidator(core_schema.int_schema(), _use_prebuilt=False)
    assert validator.validate_json(b"1") == 1


def test_the_objects_of_zlib_have_the_types_that_are_annotated() -> None:
    assert type(zlib.compressobj()).__name__ in {"Compress", "_Compress"}
    assert type(zlib.decompressobj()).__name__ in {"Decompress", "_Decompress"}


def test_a_named_tuple_has_its_fields() -> None:
    assert NamedTuple("Point", [("x", int)])._fields == ("x",)


def test_the_frames_of_threads_are_found_by_their_ids() -> None:
    assert sys._current_frames()[threading.get_ident()] is inspect.currentframe()


def parameters(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)
