"""Generates straight-line functions when the app is built, so that a conversion is as fast as hand-written code.

``docs/architecture.md`` says why DTOs generate code. Source text contains only generated names, names of fields that
are plain identifiers, and the ``repr`` of strings; types, functions and defaults are bound by name in the functions'
globals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from keyword import iskeyword
from typing import Any, Final

__all__ = ("VALUE", "Code", "call", "display", "get", "put")

VALUE: Final = "\0"
"""The placeholder for the value in an expression. NUL cannot occur in source text otherwise."""


class Code:
    """The functions of one reader or writer, and their shared globals."""

    def __init__(self) -> None:
        self._globals: dict[str, Any] = {"getattr": getattr, "setattr": setattr}

    def bind(self, value: object, hint: str) -> str:
        """Bind ``value`` to a new name in the functions' globals; returns the name."""
        name = self.reserve(hint)
        self._globals[name] = value
        return name

    def reserve(self, hint: str) -> str:
        """Reserve a name that is defined later, so that functions can call each other."""
        name = f"{hint}_{len(self._globals)}"
        self._globals[name] = None
        return name

    def define(self, name: str, body: Sequence[str]) -> Any:
        """Compile the function ``name`` from the lines of its body; ``VALUE`` is its argument."""
        source = "\n".join((f"def {name}(v):", *(f"    {line}" for line in body))).replace(VALUE, "v")
        exec(compile(source, f"<telex.dto {name}>", "exec"), self._globals)  # noqa: S102 - see the module
        return self._globals[name]

    def function(self, expression: str) -> Callable[[Any], Any]:
        """The expression as a function of ``VALUE``."""
        function: Callable[[Any], Any] = self.define(self.reserve("transfer"), [f"return {expression}"])
        return function


def get(value: str, name: str) -> str:
    """The expression for an attribute."""
    return f"{value}.{name}" if _is_plain(name) else f"getattr({value}, {name!r})"


def put(target: str, name: str, value: str) -> str:
    """The statement that sets an attribute."""
    return f"{target}.{name} = {value}" if _is_plain(name) else f"setattr({target}, {name!r}, {value})"


def call(function: str, arguments: Mapping[str, str]) -> str:
    """The expression for a call with arguments by name."""
    plain = [f"{name}={value}" for name, value in arguments.items() if _is_plain(name)]
    others = {name: value for name, value in arguments.items() if not _is_plain(name)}
    return f"{function}({', '.join([*plain, f'**{display(others)}'] if others else plain)})"


def display(items: Mapping[str, str]) -> str:
    """The expression for a dictionary."""
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in items.items()) + "}"


def _is_plain(name: str) -> bool:
    """Whether ``name`` can be used in source text. Python normalizes non-ASCII identifiers, so these are quoted."""
    return name.isascii() and name.isidentifier() and not iskeyword(name) and name != "__debug__"
