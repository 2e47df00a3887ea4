"""Reads the pages: their code blocks, their tables, and which example files the tests run."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ("EXAMPLES", "ROOT", "Block", "blocks", "is_run", "pages", "table")

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_MARK = re.compile(r"<!-- file: (?P<file>\S+) -->\n\s*\Z")
_INCLUDE = re.compile(r'--8<-- "(?P<file>[^":]+)(?::[^"]*)?"')
_OWN_PACKAGE = re.compile(r"(?<=from )examples\.docs\.|(?<=from )examples\.docs(?= import)")


@dataclass(frozen=True)
class Block:
    """A code block: its page and line, what it is written in, its text, and the file that it says it shows."""

    page: Path
    line: int
    language: str
    text: str
    file: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def includes(self) -> list[str]:
        """The files that the page takes the block from; empty when it is written out."""
        return [match["file"] for match in _INCLUDE.finditer(self.text)]

    def is_only_included(self) -> bool:
        return bool(self.includes) and not _INCLUDE.sub("", self.text).strip()

    def equals_its_file(self) -> bool:
        """Whether the text is the file's. A reader's files stand in a folder of their own, so ours is left out."""
        assert self.file is not None
        return self.text.strip() == _OWN_PACKAGE.sub("", (ROOT / self.file).read_text()).strip()


def pages() -> list[Path]:
    """Every page of the documentation, and the README."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of ``page``."""
    source = page.read_text()
    for match in _FENCE.finditer(source):
        mark = _MARK.search(source[: match.start()])
        line = source.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], textwrap.dedent(match["text"]), mark["file"] if mark else None)


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under ``heading``, each the texts of its cells without their backquotes."""
    text = (ROOT / "docs" / page).read_text()
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def is_run(file: str) -> bool:
    """Whether some test imports the module that ``file`` is, or names the file, or imports its folder file by file."""
    path = Path(file)
    names = {path.name, path.as_posix(), ".".join(path.with_suffix("").parts), f"{'.'.join(path.parent.parts)}."}
    return bool(names & _known_to_tests()) or file.startswith("tests/")


@cache
def _known_to_tests() -> frozenset[str]:
    """What the tests import, what the examples that they import import, and what the tests name."""
    known: set[str] = set()
    files = list((ROOT / "tests").rglob("*.py"))
    while files:
        found = set().union(*map(_mentioned, files)) - known
        known |= found
        modules = (ROOT / f"{name.replace('.', '/')}.py" for name in found if name.startswith("examples."))
        files = [module for module in modules if module.is_file()]
    return frozenset(known)


def _mentioned(file: Path) -> set[str]:
    """The modules and names that ``file`` imports, and its texts; of ``module:attribute`` also the module."""
    mentioned: set[str] = set()
    package = file.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            mentioned |= {module, *(f"{module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            mentioned |= {each.name for each in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            mentioned |= {node.value, node.value.partition(":")[0]}
    return mentioned
