"""Data transfer objects: they select and rename the fields of a model in messages.

Each name is loaded at its first use: pydantic, attrs and SQLAlchemy are imported only if their DTO is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from telex.dto.kinds import KINDS

if TYPE_CHECKING:
    from telex.dto.attrs_dto import AttrsDTO
    from telex.dto.base import AbstractDTO
    from telex.dto.config import DTOConfig, Mark, RenameStrategy, dto_field
    from telex.dto.data import DTOData
    from telex.dto.dataclass_dto import DataclassDTO
    from telex.dto.fields import DTOFieldDefinition
    from telex.dto.msgspec_dto import MsgspecDTO
    from telex.dto.pydantic_dto import PydanticDTO
    from telex.dto.sqlalchemy_dto import SQLAlchemyDTO
    from telex.dto.typeddict_dto import TypedDictDTO

__all__ = (
    "AbstractDTO",
    "AttrsDTO",
    "DTOConfig",
    "DTOData",
    "DTOFieldDefinition",
    "DataclassDTO",
    "Mark",
    "MsgspecDTO",
    "PydanticDTO",
    "RenameStrategy",
    "SQLAlchemyDTO",
    "TypedDictDTO",
    "dto_field",
)

_MODULES: Final = {
    "AbstractDTO": "telex.dto.base",
    "DTOConfig": "telex.dto.config",
    "DTOData": "telex.dto.data",
    "DTOFieldDefinition": "telex.dto.fields",
    "Mark": "telex.dto.config",
    "RenameStrategy": "telex.dto.config",
    "dto_field": "telex.dto.config",
    **{name: module for name, (module, _) in KINDS.items()},
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'telex.dto' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
