"""Finds the DTO of a nested model, which may be of another kind than the outer model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from telex.annotations import model_class
from telex.dto.base import AbstractDTO

__all__ = ("KINDS", "kind_of")

KINDS: Final = {
    # The order matters: a mapped class may be a dataclass too.
    "SQLAlchemyDTO": ("telex.dto.sqlalchemy_dto", "sqlalchemy.orm"),
    "PydanticDTO": ("telex.dto.pydantic_dto", "pydantic"),
    "AttrsDTO": ("telex.dto.attrs_dto", "attr"),
    "MsgspecDTO": ("telex.dto.msgspec_dto", "msgspec"),
    "TypedDictDTO": ("telex.dto.typeddict_dto", "typing"),
    "DataclassDTO": ("telex.dto.dataclass_dto", "dataclasses"),
}
"""The module of each DTO, and the module that must be imported before a model of its kind can exist."""


def kind_of(annotation: Any, own: type[AbstractDTO[Any]]) -> type[AbstractDTO[Any]] | None:
    """The DTO for a nested model: ``own`` if it supports the model, else another one; ``None`` if it is no model."""
    cls = model_class(annotation)
    if not isinstance(cls, type):
        return None
    return next((dto for dto in (own, *_others()) if dto.detect_nested_field(cls)), None)


def _others() -> Iterator[type[AbstractDTO[Any]]]:
    for name, (module, needs) in KINDS.items():
        if needs in sys.modules:
            yield getattr(import_module(module), name)
