"""Writes into the pages the files and the parts of the reference that they show: ``scripts/docs sync``.

A page shows a file in the code block below ``<!-- file: examples/docs/hello.py -->``, and the reference of a name
between ``<!-- reference: telex.Telex -->`` and ``<!-- end of reference -->``. ``only: a, b`` and ``without: a, b``
after the name choose its members; ``only: none`` shows none. ``<!-- tree -->`` and ``<!-- floors -->`` stand before
the map of the code in the same way, ``<!-- close codes -->`` before the table of close codes, and ``<!-- frames: client
-->`` and the like before the tables of frames. Scripts of the examples, and the TypeScript client, have the table of
close codes between ``// <close-codes>`` and ``// </close-codes>``.
"""

from __future__ import annotations

import re
from pathlib import Path

from scripts import docs_close_codes, docs_frames
from scripts.docs_map import floors, tree
from scripts.docs_reference import reference

__all__ = ("COMMAND", "ROOT", "pages", "scripts", "synced", "synced_script")

COMMAND = "scripts/docs sync"
ROOT = Path(__file__).parent.parent

FILE = re.compile(r"(?P<head><!-- file: (?P<file>\S+) -->\n```\w*\n).*?(?P<end>^```$)", re.DOTALL | re.MULTILINE)
REFERENCE = re.compile(
    r"(?P<head><!-- reference: (?P<path>[\w.]+)"
    r"(?:; only: (?P<only>[\w, ]+))?(?:; without: (?P<without>[\w, ]+))? -->\n)"
    r".*?(?P<end><!-- end of reference -->)",
    re.DOTALL,
)
MAP = re.compile(
    r"(?P<head><!-- (?P<name>tree|floors|close codes|frames: \w+) -->\n).*?(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)
SCRIPT = re.compile(r"(?P<head>// <close-codes>[^\n]*\n).*?(?P<end>// </close-codes>)", re.DOTALL)
OWN_PACKAGE = re.compile(r"(?<=from )examples\.docs\.|(?<=from )examples\.docs(?= import)")
MAPS = {
    "tree": tree,
    "floors": floors,
    "close codes": docs_close_codes.as_markdown,
    "frames: client": docs_frames.client_frames,
    "frames: routes": docs_frames.route_frames,
    "frames: server": docs_frames.server_frames,
    "frames: codes": docs_frames.codes,
    "frames: limits": docs_frames.limits,
}


def pages() -> list[Path]:
    """Every page of the documentation, and the README."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def scripts() -> list[Path]:
    """Every script of the examples, and the table of the TypeScript client."""
    return [*sorted((ROOT / "examples").rglob("*.js")), ROOT / "clients/typescript/src/close-codes.ts"]


def synced_script(file: Path) -> str:
    """The text of a script, with the table of close codes as it is now."""
    table = docs_close_codes.as_javascript() if file.suffix == ".js" else docs_close_codes.as_typescript()
    return SCRIPT.sub(lambda match: f"{match['head']}{table}\n{match['end']}", file.read_text("utf-8"))


def synced(text: str) -> str:
    """``text`` of a page, with its files and its reference as they are now."""
    text = FILE.sub(lambda match: f"{match['head']}{contents(match['file'])}\n{match['end']}", text)
    text = MAP.sub(lambda match: f"{match['head']}\n{MAPS[match['name']]()}\n\n{match['end']}", text)
    return REFERENCE.sub(lambda match: f"{match['head']}\n{referred(match)}\n\n{match['end']}", text)


def contents(file: str) -> str:
    """What a page shows of ``file``: without the name of our package, as a reader's files stand in one folder."""
    return OWN_PACKAGE.sub("", (ROOT / file).read_text("utf-8")).strip("\n")


def referred(match: re.Match[str]) -> str:
    """The reference that one pair of marks asks for."""
    only = None if match["only"] is None else [name for name in names(match["only"]) if name != "none"]
    return reference(match["path"], only=only, without=names(match["without"] or ""))


def names(text: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    for file in [*scripts(), *pages()]:
        before = file.read_text("utf-8")
        after = synced(before) if file.suffix == ".md" else synced_script(file)
        if after != before:
            file.write_text(after, "utf-8")
            print(f"wrote {file.relative_to(ROOT)}")  # noqa: T201
