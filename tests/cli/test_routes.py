"""The table of ``telex routes``, and ``--version``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import telex
from tests.support.programs import TELEX, output_of

pytestmark = pytest.mark.program

APP = """
from collections.abc import AsyncGenerator
from dataclasses import dataclass
import msgspec
from telex import Multiplex, Provide, Router, Telex, WebSocket, WebsocketListener
from telex import receives, websocket, websocket_listener, websocket_stream

class Move(msgspec.Struct, tag="move"):
    x: int

class Say(msgspec.Struct, tag="say"):
    text: str

@dataclass
class Event:
    at: float

def members_only(socket: WebSocket) -> None: ...
def session() -> int: return 1

@websocket_listener("/moves/{room:str}", name="moves", guards=[members_only])
def moves(data: Move | list[Say], room: str, db: int) -> Event | None: ...

class Table(WebsocketListener):
    path = ["/table", "/board"]
    send_mode = "binary"

    @receives
    def move(self, data: Move) -> Event: ...

    @receives
    def say(self, data: Say) -> None: ...

@websocket_stream("/[ticks]")
async def ticks() -> AsyncGenerator[dict[str, float], None]:
    yield {}

@websocket("/raw")
async def raw(socket: WebSocket) -> None: ...

both = Multiplex("/both", routes=[Table, raw])
v1 = Router("/v1", route_handlers=[moves], dependencies={"db": Provide(session, scope="message")})
app = Telex([v1, Table, ticks, raw, both])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def rows(table: str) -> list[list[str]]:
    """The cells of each line that has some; two or more spaces are between two cells."""
    lines = [line for line in table.splitlines() if line.strip() and "─" not in line]
    head = lines[0]
    starts = [head.index(name) for name in head.split()]
    ends = [*starts[1:], max(map(len, lines))]
    return [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]


def test_the_table_says_what_is_served(folder: Path) -> None:
    ended = output_of(TELEX, "routes", "app:app", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    head, *body = rows(ended.stdout)
    where = f"({folder.name}/app.py:%d)"
    assert head == ["Path", "Kind", "Name", "Handler", "Receives", "Sends", "Guards", "Dependencies"]
    assert body == [
        [
            "/v1/moves/{room:str}",
            "listener",
            "moves",
            f"moves {where % 21}",
            "Move | list[Say]",
            "Event | None",
            "members_only",
            "db (message)",
        ],
        ["/table", "listener", "", f"Table.move {where % 28}", "Move | Say", "Event (binary)", "", ""],
        ["/board", "listener", "", f"Table.move {where % 28}", "Move | Say", "Event (binary)", "", ""],
        ["/[ticks]", "stream", "", f"ticks {where % 34}", "", "dict[str, float]", "", ""],
        ["/raw", "websocket", "", f"raw {where % 38}", "", "", "", ""],
        ["/both", "multiplex", "", f"Multiplex('/both') {where % 41}", "opens /table, /board, /raw", "", "", ""],
    ]


def test_the_table_fits_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which says: take the output for a terminal
    monkeypatch.setenv("COLUMNS", "90")
    ended = output_of(TELEX, "routes", "app:app", cwd=folder)
    plain = re.sub(r"\x1b\[[\d;]*m", "", ended.stdout)
    assert max(map(len, plain.splitlines())) == 90
    assert plain != ended.stdout


def test_an_app_without_routes_has_an_empty_table(folder: Path) -> None:
    (folder / "nothing.py").write_text("from telex import Telex\napp = Telex()\n")
    ended = output_of(TELEX, "routes", "nothing:app", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert len(rows(ended.stdout)) == 1


def test_the_version_is_the_packages() -> None:
    ended = output_of(TELEX, "--version")
    assert ended.stdout == f"telex {telex.__version__}\n"


def test_help_names_the_commands() -> None:
    ended = output_of(TELEX, "--help")
    assert "Serve TARGET until Ctrl+C or SIGTERM." in ended.stdout
    assert "Print the routes of TARGET." in ended.stdout


def test_help_has_no_cut_sentences_and_ends() -> None:
    for command in ((), ("run",), ("routes",)):
        ended = output_of(TELEX, *command, "--help")
        assert ended.returncode == 0, ended.stderr
        assert "..." not in ended.stdout.partition("\n")[2]
        assert max(map(len, ended.stdout.splitlines())) <= 80


def test_the_package_runs_as_a_module(folder: Path) -> None:
    module = (sys.executable, "-m", "telex")
    assert output_of(*module, "--version").stdout == f"telex {telex.__version__}\n"
    assert output_of(*module, "--help").stdout == output_of(TELEX, "--help").stdout
    ended = output_of(*module, "routes", "app:app", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "/v1/moves/{room:str}" in ended.stdout
    assert output_of(*module, "routes", "nowhere:app", cwd=folder).returncode == 1


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("click", ["--version"], "cli"),
        ("rich", ["--version"], "cli"),
        ("uvicorn", ["run", "app:app"], "server"),
        ("picows", ["run", "app:app"], "server"),
    ],
)
def test_a_library_that_is_missing_is_told_of_in_one_sentence(
    folder: Path, missing: str, command: list[str], extra: str
) -> None:
    blocked = f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
sys.argv[1:] = {command!r}
from telex.cli.main import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, timeout=20, cwd=folder, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == (f"This command needs {missing}, which is not installed: pip install 'telex[{extra}]'\n")


def test_routes_need_no_server(folder: Path) -> None:
    without = """
import sys
sys.modules["uvicorn"] = sys.modules["picows"] = None
sys.argv[1:] = ["routes", "app:app"]
from telex.cli.main import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, timeout=20, cwd=folder, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "/v1/moves/{room:str}" in ended.stdout
