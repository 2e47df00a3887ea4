"""The errors of a route in a document: the message of Telex's own, and those of declared exceptions."""

from __future__ import annotations

import inspect
from typing import Any, Final, get_type_hints

from telex.contract.schemas import Schema
from telex.protocol.errors import ERROR_CODES
from telex.protocol.failures import code_of

__all__ = ("TELEX_ERROR", "declared_error", "public_fields")


def _error(error: Schema) -> Schema:
    properties = {"type": {"type": "string", "const": "error"}, "error": error}
    return {"type": "object", "properties": properties, "required": ["type", "error"]}


TELEX_ERROR: Final = _error(
    {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": sorted(ERROR_CODES)},
            "message": {"type": "string"},
            "path": {"type": "string"},
            "retry_after": {"type": "number"},
        },
        "required": ["code", "message"],
    }
)
"""The payload of an error with one of Telex's own codes."""


def declared_error(kind: type[Exception], data: Schema | None) -> Schema:
    """The payload of an error that a handler declares with ``errors=[...]``; ``data`` is that of its public fields."""
    properties: Schema = {"code": {"type": "string", "const": code_of(kind)}, "message": {"type": "string"}}
    if data is not None:
        properties["data"] = data
    found = _error({"type": "object", "properties": properties, "required": ["code", "message"]})
    text = inspect.getdoc(kind) if kind.__doc__ else None
    return ({"description": text} if text else {}) | found


def public_fields(kind: type[Exception]) -> dict[str, Any]:
    """The public attributes of a declared exception, as far as annotations tell: of the class, or of ``__init__``."""
    found: dict[str, Any] = {}
    for target in (kind, kind.__init__):
        try:
            hints = get_type_hints(target, include_extras=True)
        except (NameError, TypeError, AttributeError):
            continue
        found = {name: hint for name, hint in hints.items() if _is_public(name)} | found
    return {name: hint for name, hint in found.items() if name in _assigned(kind)}


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in {"return", "code"}


def _assigned(kind: type[Exception]) -> frozenset[str]:
    """The attributes that the class annotates or that ``__init__`` sets on ``self``."""
    annotated = {name for each in kind.__mro__ for name in inspect.get_annotations(each)}
    init = kind.__init__
    code = getattr(init, "__code__", None)
    return frozenset(annotated) | frozenset(code.co_names if code is not None else ())
