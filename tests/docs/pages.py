"""Reads the pages: their code blocks, their tables, and which example files the tests run."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.docs_sync import ROOT

__all__ = ("EXAMPLES", "ROOT", "Block", "blocks", "is_run", "table")

EXAMPLES = ROOT / "examples" / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_MARK = re.compile(r"<!-- file: (?P<file>\S+) -->\n\s*\Z")
_REFERENCE = re.compile(r"<!-- reference: .*?<!-- end of reference -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: where it stands, what it is written in, its text, and the file that it says it shows."""

    page: Path
    line: int
    indent: str
    language: str
    text: str
    file: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of ``page``, without those of the generated reference."""
    source = _REFERENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
    for match in _FENCE.finditer(source):
        mark = _MARK.search(source[: match.start()])
        line = source.count("\n", 0, match.start()) + 1
        yield Block(
            page,
            line,
            match["indent"],
            match["language"],
            textwrap.dedent(match["text"]),
            mark["file"] if mark else None,
        )


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
