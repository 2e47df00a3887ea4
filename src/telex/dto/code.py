"""Straight-line functions, made when the app is built: a transfer costs what it costs written out by hand.

Only names that are generated here, and ``repr`` of strings, become source text; types, functions and defaults are
bound by name in the functions' globals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

__all__ = ("Code", "Source")

Source: TypeAlias = Callable[[str, bool], str]
"""From an expression (a name, or attributes and items of one) to the expression that transfers its value.

If true is given, models are transferred inside the expression where that is possible, else by their functions, which
say what is wrong in case of an error.
"""


class Code:
    """The functions of one reader or writer, and the names that they share."""

    def __init__(self) -> None:
        self._globals: dict[str, Any] = {}

    def bind(self, value: object, hint: str) -> str:
        """A name for ``value`` in the functions."""
        name = self.reserve(hint)
        self._globals[name] = value
        return name

    def reserve(self, hint: str) -> str:
        """A name for what will be defined later, so that functions may call each other."""
        name = f"{hint}_{len(self._globals)}"
        self._globals[name] = None
        return name

    def define(self, name: str, parameter: str, body: Sequence[str]) -> Any:
        """Make the function ``name`` of the lines of its body."""
        source = "\n".join((f"def {name}({parameter}):", *(f"    {line}" for line in body)))
        exec(compile(source, f"<telex.dto {name}>", "exec"), self._globals)  # noqa: S102 - see the module
        return self._globals[name]

    def function(self, expression: str) -> Callable[[Any], Any]:
        """The expression as a function of ``v``."""
        function: Callable[[Any], Any] = self.define(self.reserve("transfer"), "v", [f"return {expression}"])
        return function
