"""No page shows code that nobody runs: every block is a file that a test runs, or a command that exists."""

from __future__ import annotations

import importlib.util
import os
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from telex.cli.commands import telex
from telex.server import Settings
from tests.docs.pages import EXAMPLES, ROOT, Block, blocks, is_run, pages

BLOCKS = [block for page in pages() for block in blocks(page)]
SHOWN = [block for block in BLOCKS if block.language != "console"]
COMMANDS = [block for block in BLOCKS if block.language == "console"]


def test_there_is_something_to_check() -> None:
    assert len(SHOWN) > 20
    assert COMMANDS


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.where)
def test_code_is_a_file_that_tests_run(block: Block) -> None:
    files: list[str | None] = [*block.includes] or [block.file]
    for file in files:
        assert file is not None, "write '<!-- file: examples/docs/name.py -->' above it, or include the file"
        assert (ROOT / file).is_file(), f"there is no {file}"
        assert is_run(file), f"no test runs {file}"
    assert block.is_only_included() or block.equals_its_file(), f"it differs from {files}"


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.where)
def test_commands_exist(block: Block) -> None:
    for line in block.text.splitlines():
        assert line.startswith("$ "), f"a console block has commands only, each after '$ ': {line!r}"
        check_command(shlex.split(line.removeprefix("$ ")))


def test_every_example_is_shown() -> None:
    shown = {ROOT / file for block in BLOCKS for file in [*block.includes, block.file] if file is not None}
    unused = {path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts} - shown
    assert not unused


def check_command(words: list[str]) -> None:
    known = {f"TELEX_{field.name.upper()}" for field in fields(Settings)}
    while "=" in words[0]:
        variable = words.pop(0).partition("=")[0]
        assert variable in known, f"{variable} is no setting"
    match words:
        case ["telex", "--version"]:
            pass
        case ["telex", name, *arguments]:
            check_telex(name, arguments)
        case ["pip", "install", *packages]:
            check_packages(packages)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), f"there is no module {module}"
        case ["uvicorn", _, *options]:
            check_uvicorn(options)
        case [script, *_] if script.startswith("scripts/"):
            assert os.access(ROOT / script, os.X_OK), f"{script} cannot be executed"
        case _:
            raise AssertionError(f"nobody knows whether {shlex.join(words)!r} works")


def check_telex(name: str, arguments: list[str]) -> None:
    command = telex.commands.get(name)
    assert command is not None, f"there is no command telex {name}"
    with click.Context(command) as context:
        command.parse_args(context, list(arguments))


def check_packages(packages: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for package in packages:
        name, _, extras = package.removesuffix("]").partition("[")
        assert name == "telex"
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def check_uvicorn(options: list[str]) -> None:
    for option, value in zip(options[::2], options[1::2], strict=True):
        module, _, attribute = value.partition(":")
        assert option == "--ws"
        assert hasattr(importlib.import_module(module), attribute)


def test_a_page_that_lies_is_found(tmp_path: Path) -> None:
    """The check itself can fail."""
    page = tmp_path / "page.md"
    page.write_text("<!-- file: examples/docs/echo.py -->\n```python\nprint('not the file')\n```\n")
    (lie,) = blocks(page)
    assert lie.file == "examples/docs/echo.py"
    assert not lie.equals_its_file()
    assert not is_run("examples/docs/" + "unknown" + ".py")
    with pytest.raises(click.UsageError):
        check_command(["telex", "run", "app:app", "--no-such-option"])
    with pytest.raises(AssertionError):
        check_command(["rm", "-r", "/"])
