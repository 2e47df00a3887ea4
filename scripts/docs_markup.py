"""An extension for griffe: the reStructuredText in our docstrings, as Markdown."""

from __future__ import annotations

import re

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`(?P<short>~)?(?P<path>[^`]+)`")
LITERAL_BLOCK = re.compile(r"(?m)^(?P<indent> *)::$|::$")


class Markdown(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Roles as code, and no marks before literal blocks, which Markdown takes for code as they are."""
    text = ROLE.sub(lambda role: f"`{role['path'].rpartition('.')[2] if role['short'] else role['path']}`", text)
    return LITERAL_BLOCK.sub(lambda mark: "" if mark["indent"] is not None else ":", text)
