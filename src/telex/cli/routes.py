"""Makes the table of ``telex routes`` from the app's plans."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from telex.plans import HandlerPlan, MessageShape
from telex.signatures import describe

__all__ = ("routes_table",)


def routes_table(plans: Iterable[HandlerPlan]) -> Table:
    """A table with one row per handler and path."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Path", "Kind", "Name", "Handler", "Receives", "Sends", "Guards", "Dependencies"):
        table.add_column(heading, overflow="fold")
    for plan in plans:
        table.add_row(*(escape(cell) for cell in _cells(plan)))
    return table


def _cells(plan: HandlerPlan) -> tuple[str, ...]:
    return (
        plan.path,
        plan.kind,
        plan.name or "",
        plan.where,
        _shapes(plan.receives) or ("opens " + ", ".join(plan.opens) if plan.opens else ""),
        _shapes(plan.sends),
        ", ".join(_name(guard) for guard in plan.layer.guards),
        ", ".join(_provided(name, each.scope) for name, each in plan.layer.dependencies.items()),
    )


def _shapes(shapes: Iterable[MessageShape]) -> str:
    return " | ".join(dict.fromkeys(_shape(shape) for shape in shapes))


def _shape(shape: MessageShape) -> str:
    name = type_name(shape.annotation)
    return name if shape.mode == "text" else f"{name} (binary)"


def type_name(annotation: Any) -> str:
    """The text of an annotation, without module names."""
    written = annotation.__qualname__ if isinstance(annotation, type) and not _is_generic(annotation) else annotation
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(written))


def _is_generic(annotation: Any) -> bool:
    return hasattr(annotation, "__origin__")


def _name(guard: object) -> str:
    return describe(guard).partition(" (")[0]


def _provided(name: str, scope: str) -> str:
    return name if scope == "connection" else f"{name} ({scope})"
