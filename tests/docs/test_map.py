"""The pages that map the code name files, tests and names that exist; so does every comment and docstring."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT, table

NAMED_TESTS = re.compile(r"`(?P<file>tests/[\w/]+\.py)`(?P<tests>(?:[:,] `test_\w+`)*)")
CODES = re.compile(r"def test_(?:t\d+|row_\d+|[bcdfhrs]\d+)_")
PAGES_IN_TEXT = re.compile(r"(?<![\w*/])(?:docs/[\w/-]+|[A-Z]+)\.md\b")
SOURCES = [
    path for folder in ("src", "tests", "examples", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")
]


def shown() -> Iterator[tuple[str, str]]:
    for row in [*rows("threats-and-promises.md"), *threats()]:
        for match in NAMED_TESTS.finditer(row):
            for test in re.findall(r"`(test_\w+)`", match["tests"]):
                yield match["file"], test


def rows(page: str) -> list[str]:
    return [line for line in (ROOT / "docs" / page).read_text("utf-8").splitlines() if line.startswith("| ")]


def threats() -> list[str]:
    """The rows of the table of threats in the topic of security."""
    topic = (ROOT / "docs/topics/security.md").read_text("utf-8")
    section = topic.partition("## Threats\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ") and not line.endswith("shown by |")]


def test_every_promise_names_tests_that_exist() -> None:
    promises = [row for row in rows("threats-and-promises.md") if not row.endswith("shown by |")]
    assert len(promises) > 50
    assert len(threats()) > 15
    assert [row for row in [*promises, *threats()] if NAMED_TESTS.search(row) is None] == []
    files = {file: (ROOT / file).read_text("utf-8") for file, _ in shown()}
    assert [f"{file}: {test}" for file, test in shown() if f"def {test}(" not in files[file]] == []


def test_private_names_stand_where_the_map_says() -> None:
    for names, file, _, test in table("architecture.md", "Private names we use"):
        source = (ROOT / "src" / "telex" / file).read_text("utf-8")
        for name in re.findall(r"[\w.]+", names):
            assert name.rpartition(".")[2] in source, f"{file} does not use {name} any more"
        assert (ROOT / test).is_file(), f"there is no {test}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_beside_the_docs_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_no_text_refers_to_a_page_that_does_not_exist() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in SOURCES}
    missing = {
        file: pages
        for file, text in texts.items()
        if (pages := [page for page in PAGES_IN_TEXT.findall(text) if not (ROOT / page).is_file()])
    }
    assert missing == {}
    assert [file for file, text in texts.items() if CODES.search(text)] == []
