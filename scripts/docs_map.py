"""The map of the code as Markdown: the tree of modules, each with what it says of itself, and the floors."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from scripts.docs_reference import as_markdown, item

__all__ = ("floors", "tree")

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "telex"
FLOORS = ROOT / "tests" / "test_floors.py"
SENTENCE = re.compile(r".+?\.(?=\s|$)", re.DOTALL)


def tree() -> str:
    """Every module with the first sentence of its docstring, by package."""
    return "\n".join(listed(SOURCE, ""))


def listed(folder: Path, indent: str) -> Iterator[str]:
    """The modules of one package, then its packages."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield entry(path.name, path, indent)
    for path in sorted(folder.glob("*/__init__.py")):
        yield entry(f"{path.parent.name}/", path, indent)
        yield from listed(path.parent, f"{indent}    ")


def entry(name: str, path: Path, indent: str) -> str:
    """One line of the tree."""
    docstring = " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].split())
    sentence = SENTENCE.match(docstring)
    said = (sentence[0] if sentence is not None else docstring).rstrip(".")
    return textwrap.indent(item(as_markdown(f"`{name}`: {said}." if said else f"`{name}`")), indent)


def floors() -> str:
    """The floors from the lowest up, of the package and inside its packages, as ``tests/test_floors.py`` has them."""
    tables = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse(FLOORS.read_text("utf-8")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
        if node.target.id in {"FLOORS", "INSIDE"}
    }
    parts = [f"The package, the lowest floor first:\n\n{numbered(tables['FLOORS'])}"]
    parts += [f"Inside `{name}`:\n\n{numbered(inside)}" for name, inside in tables["INSIDE"].items()]
    return "\n\n".join(parts)


def numbered(table: tuple[tuple[str, ...], ...]) -> str:
    """Floors as a numbered list."""
    return "\n".join(f"{number}. {', '.join(f'`{unit}`' for unit in units)}" for number, units in enumerate(table, 1))
