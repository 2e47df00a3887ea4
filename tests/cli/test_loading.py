"""What the command line says where ``module:attribute`` names no app, and that it finds those that are there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from telex.cli.commands import telex
from telex.cli.loading import make_importable
from tests.support.programs import TELEX, output_of

APP = """
from telex import Telex, websocket_listener

@websocket_listener("/echo")
def echo(data: str) -> str:
    return data

app = Telex([echo])
settings = {"a": 1}

class Holder:
    inner = app

def make() -> Telex:
    return app

async def plain(scope, receive, send) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text(APP)
    (tmp_path / "broken.py").write_text("import telex_has_no_such_module\n")
    (tmp_path / "wrong.py").write_text(
        "from telex import Telex, websocket\n@websocket('/')\nasync def handler(data: str) -> None: ...\n"
        "def make() -> Telex:\n    return Telex([handler])\n"
    )
    (tmp_path / "built.py").write_text("import wrong\napp = wrong.make()\n")
    return tmp_path


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process is in the folder, and has never imported anything from there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chat"], "'chat' does not name an app: write module:attribute, such as chat:app"),
        ([":app"], "':app' does not name an app: write module:attribute, such as main:app"),
        (["chat.py"], "'chat.py' names a file: write the module, chat:app"),
        (["./sub/chat.py:it"], "names a file: write the module, sub.chat:it"),
        (
            ["chta:app"],
            "there is no module 'chta' in {folder} or on the import path: here are broken, built, chat, wrong",
        ),
        (["chat.rooms:app"], "there is no module 'chat.rooms' in {folder}"),
        (["chat:ap"], "chat has no attribute 'ap': it has chat:app"),
        (["wrong:app"], "wrong has no attribute 'app': there is no Telex in {folder}/wrong.py"),
        (["chat:settings"], "chat:settings is a dict, not an ASGI app: it has chat:app"),
        (["chat:Holder"], "chat:Holder is the class Holder, not an ASGI app: it has chat:app"),
        (["chat:make"], "which takes no arguments: if it returns the app, add --factory"),
        (["chat:settings", "--factory"], "--factory: chat:settings is a dict, not a function that returns the app"),
        (["chat:app", "--app-dir", "nowhere"], "--app-dir nowhere is not a directory"),
        (["built:app"], "built: handler (*/wrong.py:*): parameter 'data' is not available in a websocket handler"),
        (["wrong:make", "--factory"], "wrong:make(): handler (*/wrong.py:*): parameter 'data' is not available"),
    ],
)
def test_an_app_that_is_not_there_is_told_of_in_one_line(in_folder: Path, arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(telex, ["routes", *arguments])
    assert ended.exit_code == 1, ended.output
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    position = 0
    for part in said.format(folder=in_folder).split("*"):
        assert part in ended.stderr[position:], ended.stderr
        position = ended.stderr.index(part, position)


@pytest.mark.program
@pytest.mark.parametrize(
    "arguments", [["chat:ap"], ["chat:ap", "--workers", "2"], ["wrong:make", "--factory"], ["chat", "--reload"]]
)
def test_run_tells_of_it_too(folder: Path, arguments: list[str]) -> None:
    ended = output_of(TELEX, "run", *arguments, cwd=folder)
    assert ended.returncode == 1, ended.stdout
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.program
def test_what_the_module_itself_cannot_import_is_not_hidden(folder: Path) -> None:
    ended = output_of(TELEX, "routes", "broken:app", cwd=folder)
    assert ended.returncode == 1
    assert ended.stderr.endswith("ModuleNotFoundError: No module named 'telex_has_no_such_module'\n")
    assert f'File "{folder}/broken.py", line 1' in ended.stderr


@pytest.mark.program
def test_an_app_that_is_not_telex_has_no_routes(folder: Path) -> None:
    ended = output_of(TELEX, "routes", "chat:plain", cwd=folder)
    assert ended.returncode == 1
    assert "chat:plain is the function plain" in ended.stderr
    assert "not a Telex: it has chat:app" in ended.stderr


@pytest.mark.program
@pytest.mark.parametrize("arguments", [["chat:app"], ["chat:Holder.inner"], ["chat:make", "--factory"]])
def test_apps_are_found_in_the_current_directory(folder: Path, arguments: list[str]) -> None:
    ended = output_of(TELEX, "routes", *arguments, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "/echo" in ended.stdout


@pytest.mark.program
def test_apps_are_found_in_another_directory(folder: Path) -> None:
    ended = output_of(TELEX, "routes", "chat:app", "--app-dir", str(folder), cwd=Path(sys.prefix))
    assert ended.returncode == 0, ended.stderr
    assert "/echo" in ended.stdout


@pytest.mark.program
def test_a_setting_in_the_environment_that_does_not_fit_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEX_PORT", "many")
    ended = output_of(TELEX, "run", "chat:app", cwd=folder)
    assert ended.returncode == 1
    assert ended.stderr == "Error: The environment variable TELEX_PORT is 'many', but must be int.\n"


def test_a_directory_is_put_on_the_path_once(in_folder: Path) -> None:
    make_importable(".")
    make_importable(str(in_folder))
    assert sys.path.count(str(in_folder)) == 1
    assert sys.path[0] == str(in_folder)


@pytest.mark.program
def test_an_import_that_fails_shows_the_users_own_traceback(folder: Path) -> None:
    (folder / "deep.py").write_text("def connect():\n    raise RuntimeError('no database')\n\nconnect()\n")
    result = output_of(TELEX, "run", "deep:app", cwd=folder)
    said = result.stdout + (result.stderr or "")
    assert 'deep.py", line 4' in said
    assert "RuntimeError: no database" in said
    assert "click" not in said
    assert len(said.splitlines()) < 14


def test_memory_channels_with_several_workers_are_warned_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "room.py").write_text(
        "from telex import Channels, Telex\napp = Telex([], plugins=[Channels('memory://', channels=['a'])])\n"
    )
    monkeypatch.setattr("telex.cli.serving.run", lambda *_: None)
    monkeypatch.chdir(folder)
    for workers, warnings in ((1, 0), (2, 1)):
        caplog.clear()
        result = CliRunner().invoke(telex, ["run", "room:app", "--workers", str(workers)])
        assert result.exit_code == 0, result.output
        assert len([record for record in caplog.records if "memory://" in record.getMessage()]) == warnings
