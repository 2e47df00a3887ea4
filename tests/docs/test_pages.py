"""Every code block of a page is a file that a test runs, a command that exists, or generated reference.

The pages read whole where nothing builds them: no markup of a site builder stands in them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from scripts.docs_sync import COMMAND, pages, synced
from telex.cli.commands import telex
from telex.server import Settings
from tests.docs.pages import EXAMPLES, ROOT, Block, blocks, is_run

BLOCKS = [block for page in pages() for block in blocks(page)]
SHOWN = [block for block in BLOCKS if block.language != "console"]
COMMANDS = [block for block in BLOCKS if block.language == "console"]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
RAW_MARKERS = re.compile(
    r"--8<--|^:::|^===+ \"|^!!! |^\?\?\?|\{[:#.][^}\n]*\}|:(?:class|meth|param|raises|returns)\b", re.MULTILINE
)
"""Markup that mkdocs, its extensions or Sphinx would replace, and a page without them would show."""


def test_there_is_something_to_check() -> None:
    assert len(SHOWN) > 20
    assert COMMANDS


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.where)
def test_code_is_a_file_that_tests_run(block: Block) -> None:
    assert block.file is not None, f"write '<!-- file: examples/docs/name.py -->' above it, then run {COMMAND}"
    assert (ROOT / block.file).is_file(), f"there is no {block.file}"
    assert is_run(block.file), f"no test runs {block.file}"
    assert block.indent == "", "only a block that is not indented is held equal to its file"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_show_the_files_and_the_reference_as_they_are(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == synced(text), f"{page.relative_to(ROOT)} is out of date: run {COMMAND} and commit what it writes"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_read_whole_without_a_site_builder(page: Path) -> None:
    prose = CODE.sub("", page.read_text("utf-8"))
    assert RAW_MARKERS.findall(prose) == []


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.where)
def test_commands_exist(block: Block) -> None:
    for line in block.text.splitlines():
        assert line.startswith("$ "), f"a console block has commands only, each after '$ ': {line!r}"
        check_command(shlex.split(line.removeprefix("$ ")))


def test_every_example_is_shown() -> None:
    shown = {ROOT / block.file for block in BLOCKS if block.file is not None}
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
        case ["npm", "install", "--prefix", _, "ws"]:
            pass
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


def test_an_outdated_page_is_found(tmp_path: Path) -> None:
    """The check itself can fail."""
    page = tmp_path / "page.md"
    page.write_text("<!-- file: examples/docs/echo.py -->\n```python\nprint('not the file')\n```\n")
    (lie,) = blocks(page)
    assert lie.file == "examples/docs/echo.py"
    assert synced(page.read_text()) != page.read_text()
    outdated = "<!-- reference: telex.Telex -->\nnothing\n<!-- end of reference -->\n"
    assert "route_handlers: handlers" in synced(outdated).replace("`", "")
    assert RAW_MARKERS.findall('::: telex.Telex\n\n=== "Tab"\n\n!!! note\n\n--8<-- "file"\n') != []
    assert not is_run("examples/docs/" + "unknown" + ".py")
    with pytest.raises(click.UsageError):
        check_command(["telex", "run", "app:app", "--no-such-option"])
    with pytest.raises(AssertionError):
        check_command(["rm", "-r", "/"])
