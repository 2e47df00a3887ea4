"""The official parser of AsyncAPI accepts the documents of all examples, and of the app with everything."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telex import Telex
from telex.contract.checks import check_document
from telex.contract.document import to_json
from tests.asyncapi.app import app as everything
from tests.support.npm import installed, node

ROOT = Path(__file__).parent.parent.parent
PARSER = "@asyncapi/parser@3.6.0"
SCRIPT = Path(__file__).with_name("parse.mjs")


def apps() -> Iterator[tuple[str, Telex]]:
    """The apps of all examples; tests of users and the worker of a channel have none."""
    for path in sorted((ROOT / "examples").rglob("*.py")):
        if path.stem.startswith("test_") or path.stem in {"worker", "__init__"}:
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for attribute, value in vars(importlib.import_module(name)).items():
            if isinstance(value, Telex):
                yield f"{name}.{attribute}", value


def parsed(folder: Path) -> dict[str, Any]:
    done = node(SCRIPT, str(folder), packages=installed(PARSER))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_documents_of_all_examples_have_no_mistake_that_we_find() -> None:
    found = {name: check_document(app.asyncapi()) for name, app in apps()}
    assert {name: mistakes for name, mistakes in found.items() if mistakes} == {}
    assert len(found) > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_parser_accepts_all_examples(tmp_path: Path) -> None:
    documents = {to_json(app.asyncapi()): (name, app) for name, app in apps()}
    documents[to_json(everything.asyncapi())] = ("everything", everything)
    documents[to_json(everything.asyncapi("3.0.0"))] = ("everything-3.0.0", everything)
    for text, (name, _) in documents.items():
        (tmp_path / f"{name}.json").write_text(text)
    expected = {f"{name}.json": {"channels": len(app.plans), "diagnostics": []} for name, app in documents.values()}
    assert parsed(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_parser_is_asked(tmp_path: Path) -> None:
    wrong = everything.asyncapi()
    wrong["channels"]["table"]["parameters"] = {"x": {"schema": {"type": "string"}}}
    (tmp_path / "wrong.json").write_text(to_json(wrong))
    assert parsed(tmp_path)["wrong.json"]["diagnostics"] != []
