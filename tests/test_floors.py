"""The floors of the house: a module imports only what is lower, at the top of its file.

A package is one unit among the others, and has floors of its own inside. Imports under ``if TYPE_CHECKING:`` count:
they hide circles. An import inside a function is only for what needs an optional library, and within one package. The
server is a tower of its own on the ground floor: nothing but the command line enters it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "telex"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("status_codes", "defaults", "clock", "renamed", "protocol.errors"),
    ("types", "headers", "exceptions", "datastructures", "busy_monitor", "threads", "slow_callbacks"),
    ("redis_server", "health", "paths", "telemetry.counts"),
    ("limits.rates",),
    ("annotations", "collisions", "pydantic_codecs", "protocol.envelope"),
    ("annotation_parts", "protocol.refusals"),
    ("signatures", "events", "event_reader", "sessions", "channels.delivery.queue"),
    ("params", "codecs", "calls", "auth.identity"),
    ("streams", "plain_incoming"),
    ("connection_state",),
    ("connection",),
    ("reserved", "limits.keys"),
    ("users.index",),
    ("di", "dto", "exception_handling"),
    ("layers", "middleware", "origins", "registry", "ends", "protocol", "limits"),
    ("multiplex", "once", "auth", "conformance"),
    ("plans",),
    ("channels",),
    ("handlers", "users", "telemetry"),
    ("routing", "contract"),
    ("application",),
    ("testing",),
    ("cli",),
    ("__main__",),
)
LEVELS: Mapping[str, int] = {unit: level for level, units in enumerate(FLOORS) for unit in units}
INSIDE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "handlers": (
        ("base", "invalid_messages"),
        ("message_loop",),
        ("receivers",),
        ("frame_calls", "channel_publishing"),
        ("raw", "stream", "channel_frames"),
        ("listener", "channel", "multiplex"),
        ("websocket_handlers",),
    ),
    "protocol": (
        ("envelope", "errors", "close_codes", "stepping"),
        ("refusals",),
        ("failures", "frames"),
        ("asking", "jobs", "output"),
        ("reading", "runner"),
        ("session",),
        ("calls", "incoming"),
    ),
    "auth": (("identity",), ("tokens", "provider"), ("connection",)),
    "once": (
        ("options", "keys"),
        ("answers",),
        ("redis_answers",),
        ("runs",),
        ("calls",),
    ),
    "multiplex": (
        ("frames", "turns", "credit", "opening", "scope", "denial"),
        ("plain",),
        ("virtual",),
        ("session",),
    ),
    "users": (("index", "notices"), ("nodes",), ("people",)),
    "channels": (
        ("events", "delivery.yield_budget"),
        ("names",),
        ("backends",),
        ("delivery.queue", "delivery.encoding", "publish_queue"),
        ("delivery.broadcast", "delivery.shared_sender", "presence"),
        ("delivery.topic",),
        ("delivery.subscriber",),
        ("delivery.forward", "statistics"),
        ("recovery.replay",),
        ("recovery.reader",),
        ("hub",),
        ("publisher",),
    ),
    "channels.backends": (
        ("base",),
        ("memory", "nats.subjects"),
        (
            "redis.connection",
            "nats.connection",
            "nats.jetstream",
            "postgres.connection",
            "postgres.schema",
            "postgres.transaction",
        ),
        ("redis.scripts",),
        ("redis.single", "redis.slots", "nats.core", "postgres.replay"),
        ("redis.cluster", "postgres.backend"),
    ),
    "server": (
        ("limits", "frames", "logs", "timer_wheel", "systemd"),
        ("parser", "deflate", "keepalive", "liveness", "handshake"),
        ("messages", "frame_writer"),
        ("receive_queue",),
        ("closing",),
        ("connection",),
        ("protocol",),
        ("http",),
        ("http_tools",),
        ("settings", "workers"),
        ("runner",),
    ),
    "telemetry": (("counts", "labels"), ("families",), ("prometheus", "opentelemetry")),
    "dto": (
        ("config", "code"),
        ("fields", "field_paths"),
        ("base",),
        ("nodes", "kinds"),
        ("containers", "failures"),
        ("data", "reading", "writing"),
        ("compilation",),
        ("models",),
        ("unions",),
        ("compiler",),
        ("attrs_dto", "dataclass_dto", "msgspec_dto", "pydantic_dto", "sqlalchemy_dto", "typeddict_dto"),
    ),
    "contract": (
        ("schemas",),
        ("checks", "errors", "settings", "messages", "security"),
        ("parameters", "subsets", "generation"),
        ("routes", "compatibility", "typescript", "python"),
        ("document",),
        ("serving",),
    ),
    "testing": (
        ("clock",),
        ("errors", "tasks", "cookies", "handshake", "frames", "line", "pipe"),
        ("http", "lifespan", "matching", "portal", "protocol"),
        ("frame_client",),
        ("app_run", "calling"),
        ("session", "blocking_calls"),
        ("multiplex",),
        ("client",),
        ("blocking",),
        ("create",),
    ),
    "cli": (("loading", "routes"), ("serving", "documents", "conformance"), ("commands",), ("main",)),
    "conformance": (("scenarios", "server", "adapter"), ("runner",)),
}
"""The floors inside each package."""

TOWER = "server"
UNDER_THE_TOWER = frozenset(
    {
        "status_codes",
        "defaults",
        "headers",
        "types",
        "exceptions",
        "paths",
        "health",
        "telemetry.counts",
        "protocol.envelope",
        "protocol.refusals",
    }
)
TOP = frozenset({"cli"})


def unit_of(module: str) -> str:
    """The unit that a module belongs to: ``telex.handlers.raw`` is in ``handlers``. The package itself is ``""``."""
    name = module.removeprefix("telex").removeprefix(".").removeprefix("__version__")
    units = [unit for unit in (*LEVELS, TOWER) if name == unit or name.startswith(f"{unit}.")]
    return max(units, key=len, default=name.partition(".")[0])


def module_of(path: Path, root: Path = SOURCE) -> str:
    """The dotted name of a source file."""
    parts = ("telex", *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.Module, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Line, name and "stands at the top of the file" of each import of ours."""
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            top.update(node.body)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package=is_package)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "telex" or name.startswith("telex."):
                yield node.lineno, name, node in top


def absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".")[: len(module.split(".")) - node.level + is_package]
    return ".".join([*package, *filter(None, [node.module])])


def fault(importer: str, imported: str) -> str | None:
    """Why a module of the one unit may not import the other, or ``None`` when it may."""
    if importer in {imported, ""}:
        return None
    if not imported:
        # The version is the one thing that the package itself defines.
        return None if importer in TOP else "import the module that defines the name, not the package that hands it on"
    if TOWER in {importer, imported}:
        allowed = imported in UNDER_THE_TOWER or importer in TOP
        return (
            None if allowed else "the server tower stands on types and exceptions, and only the command line enters it"
        )
    for unit in (importer, imported):
        if unit not in LEVELS:
            return f"{unit!r} has no floor: give it one in FLOORS, in tests/test_floors.py"
    if LEVELS[imported] < LEVELS[importer]:
        return None
    return f"{imported!r} is not below {importer!r}"


def place(package: str, module: str) -> tuple[str, int] | None:
    """The entry that ``module`` has in the table of ``package``, and its floor."""
    inner = module.removeprefix(f"telex.{package}.")
    entries = {entry: level for level, floor in enumerate(INSIDE[package]) for entry in floor}
    found = max((entry for entry in entries if f"{inner}.".startswith(f"{entry}.")), key=len, default=None)
    return None if found is None else (f"{package}.{found}", entries[found])


def fault_inside(importer: str, imported: str) -> str | None:
    """Why a module may not import another of its own package, or ``None`` when it may."""
    for package in INSIDE:
        if not all(module.startswith(f"telex.{package}.") for module in (importer, imported)):
            continue
        upper, lower = place(package, importer), place(package, imported)
        if upper is None or lower is None or upper[0] == lower[0] or lower[1] < upper[1]:
            continue
        return f"{lower[0]!r} is not below {upper[0]!r} (see INSIDE in tests/test_floors.py)"
    return None


def faults(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Everything that one file's imports do against the rules, a line each."""
    found: list[str] = []
    for line, name, at_top in imports_of(ast.parse(source), module, is_package=is_package):
        reason = fault(unit_of(module), unit_of(name)) or fault_inside(module, name)
        if reason is None and not at_top and unit_of(module) != unit_of(name):
            reason = "an import of ours stands at the top of the file, not inside a function or a condition"
        if reason is not None:
            found.append(f"{module}:{line} imports {name}: {reason}")
    return found


def test_every_module_of_a_package_has_a_floor_in_it() -> None:
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if path.name != "__init__.py"]
    modules = {module_of(path) for path in paths}
    placed = {f"telex.{package}.{entry}" for package, floors in INSIDE.items() for floor in floors for entry in floor}
    packages = tuple(f"telex.{package}." for package in INSIDE)
    inside = {module for module in modules if module.startswith(packages)}
    assert {module for module in inside if not any(f"{module}.".startswith(f"{entry}.") for entry in placed)} == set()
    # "channels.backends" and "channels.recovery" stand for their modules.
    assert {
        entry for entry in placed - modules if not any(module.startswith(f"{entry}.") for module in modules)
    } == set()


def test_every_module_imports_only_from_lower_floors() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert files
    found = [
        reason
        for path in files
        for reason in faults(path.read_text("utf-8"), module_of(path), is_package=path.name == "__init__.py")
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("telex.types", "from telex.connection import WebSocket"),
        ("telex.types", "import telex.connection"),
        ("telex.types", "if TYPE_CHECKING:\n    from telex.connection import WebSocket"),
        ("telex.handlers.base", "from telex.handlers.listener import ListenerHandler"),
        ("telex.channels.events", "from telex.channels import hub"),
        ("telex.channels.backends.base", "from telex.channels.backends.memory import MemoryBackend"),
        ("telex.channels.backends.redis.single", "from telex.channels.recovery.reader import Reader"),
        ("telex.channels.delivery.topic", "from telex.channels.delivery.subscriber import Subscriber"),
        ("telex.params", "from telex.connection import WebSocket"),
        ("telex.connection", "from telex.di import Provide"),
        ("telex.registry", "from telex.layers import Layer"),
        ("telex.di", "from telex import application"),
        ("telex.routing", "from . import application"),
        ("telex.handlers.raw", "from ..routing import Router"),
        ("telex.channels.delivery.queue", "from telex.channels.hub import Channels"),
        ("telex.application", "def build():\n    from telex.routing import Router"),
        ("telex.application", "try:\n    from telex.routing import Router\nexcept ImportError: ..."),
        ("telex.application", "from telex import Router"),
        ("telex.application", "if TYPE_CHECKING: ...\nelse:\n    from telex.cli.main import main"),
        ("telex.server.protocol", "from telex.connection import WebSocket"),
        ("telex.application", "from telex.server import run"),
        ("telex.novelty", "from telex.types import Scope"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("telex.application", "import asyncio\nfrom telex.routing import Router\nfrom telex import exceptions"),
        ("telex.connection", "if TYPE_CHECKING:\n    from telex.types import Scope"),
        ("telex.channels.recovery.reader", "from telex.channels.backends.redis.single import RedisBackend"),
        (
            "telex.handlers.listener",
            "from telex.handlers.raw import websocket\nfrom .stream import send_websocket_stream",
        ),
        ("telex.channels.hub", "from telex.channels.delivery.queue import DeliveryQueue"),
        ("telex.server.settings", "def load():\n    from telex.server.http_tools import Protocol"),
        ("telex.server.protocol", "from telex.types import Scope\nfrom telex.server.handshake import accept"),
        ("telex.cli.main", "from telex import __version__\nfrom telex.server.runner import run"),
        ("telex", "from telex.application import Telex"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert faults(source, module) == []
