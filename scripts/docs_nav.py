"""A hook for mkdocs: the navigation is the folders of ``docs/``, in the order that a reader takes them."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "topics": "Topics", "reference": "Reference"}
PROJECT = "About Telex"
"""The section of the pages beside the index."""
FIRST = {
    "tutorial": ("first-steps", "a-chat", "going-live"),
    "topics": (
        "listeners",
        "streams",
        "channels",
        "validation-and-errors",
        "scopes",
        "concurrency",
        "back-pressure",
        "security",
        "contract",
    ),
    "docs": ("architecture", "threats-and-promises"),
}
"""The pages that are read in order, by folder; all others follow by name."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists every page of ``docs/``; titles are the pages' own first headings."""
    docs = Path(config.docs_dir)
    strangers = {path.parent.name for path in docs.glob("*/*.md")} - set(SECTIONS)
    if strangers:
        raise PluginError(f"docs/ has folders that scripts/docs_nav.py does not know: {sorted(strangers)}")
    sections = [{title: pages(docs, folder)} for folder, title in SECTIONS.items() if (docs / folder).is_dir()]
    project = [path.name for path in sorted(docs.glob("*.md"), key=order) if path.stem != "index"]
    config.nav = ["index.md", *sections, {PROJECT: project}]
    return config


def pages(docs: Path, folder: str) -> list[str]:
    """The pages of one section, relative to ``docs/``."""
    return [path.relative_to(docs).as_posix() for path in sorted((docs / folder).rglob("*.md"), key=order)]


def order(path: Path) -> tuple[int, str]:
    """What is read in order, then all else by name."""
    first = FIRST.get(path.parent.name, ())
    return first.index(path.stem) if path.stem in first else len(first), path.stem
