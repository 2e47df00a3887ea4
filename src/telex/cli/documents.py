"""Writes and compares the documents of ``telex asyncapi``."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import msgspec

from telex.application import Telex
from telex.cli.loading import LoadError
from telex.contract.checks import check_document
from telex.contract.document import AsyncAPIVersion, from_yaml, to_json, to_yaml
from telex.contract.python import write_python
from telex.contract.typescript import write_typescript

__all__ = ("client_name", "client_of", "difference", "document_of", "read_document", "written_as")


def document_of(app: Telex, version: AsyncAPIVersion) -> dict[str, Any]:
    """The document of ``app``, checked.

    :raises LoadError: an example of the app is not of its type.
    """
    document = app.asyncapi(version)
    problems = check_document(document)
    if problems:
        raise LoadError("the document is wrong:\n" + "\n".join(problems))
    return document


def written_as(document: dict[str, Any], *, yaml: bool) -> str:
    """The text of a document."""
    return to_yaml(document) if yaml else to_json(document)


def client_name(target: str) -> str:
    """The name of a client's function: that of the module, or of its package if the module is called ``app``."""
    parts = target.partition(":")[0].split(".")
    name = parts[-2] if len(parts) > 1 and parts[-1] in {"app", "main"} else parts[-1]
    return re.sub(r"\W", "_", name)


def client_of(document: dict[str, Any], lang: str, name: str) -> str:
    """The text of a client, in TypeScript or Python."""
    return write_typescript(document, name) if lang == "ts" else write_python(document, name)


def read_document(path: Path) -> dict[str, Any]:
    """A document that was written before, as JSON or YAML.

    :raises LoadError: the file cannot be read, or is no document.
    """
    try:
        text = path.read_text("utf-8")
        found = from_yaml(text) if path.suffix in {".yaml", ".yml"} else msgspec.json.decode(text)
    except (OSError, ValueError) as exc:
        raise LoadError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise LoadError(f"{path} is no AsyncAPI document")
    return found


def difference(path: Path, text: str) -> str | None:
    """How the file differs from ``text``, as the first lines of a diff; ``None`` if they are the same.

    :raises LoadError: the file cannot be read.
    """
    try:
        found = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise LoadError(f"{path} cannot be read: {exc}") from exc
    if found == text:
        return None
    lines = difflib.unified_diff(found.splitlines(), text.splitlines(), str(path), "the app", lineterm="", n=1)
    return "\n".join(list(lines)[:LONGEST_DIFF])


LONGEST_DIFF = 40
"""Lines of a diff that are shown."""
