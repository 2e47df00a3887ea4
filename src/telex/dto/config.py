"""The configuration of DTOs: ``DTOConfig`` for a whole DTO, ``dto_field`` for one field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias, get_args

from telex.exceptions import ImproperlyConfiguredException

__all__ = ("DTOConfig", "Mark", "RenameStrategy", "dto_field", "mark_of", "renamer")

RenameStrategy: TypeAlias = Literal["lower", "upper", "camel", "pascal", "kebab"] | Callable[[str], str]
"""The name of a strategy, or a function from a field's name to its name on the wire."""


class Mark(StrEnum):
    """The direction in which a field is transferred."""

    READ_ONLY = "read-only"
    """Sent to clients, not accepted from them."""
    WRITE_ONLY = "write-only"
    """Accepted from clients, not sent to them."""
    PRIVATE = "private"
    """Neither sent nor accepted."""


_KEY: Final = "telex.dto"


def dto_field(mark: Literal["read-only", "write-only", "private"] | Mark) -> dict[str, Any]:
    """The metadata that marks a field of any kind of model.

    ::

        Annotated[str, dto_field("private")]                # every kind of model
        dataclasses.field(metadata=dto_field("private"))    # dataclasses, and attrs.field
        msgspec.Meta(extra=dto_field("private"))            # in Annotated
        mapped_column(info=dto_field("private"))            # SQLAlchemy, and relationship(info=...)

    With a union, ``Annotated`` must be outside of the union: ``Annotated[str | None, dto_field("private")]``.
    """
    try:
        return {_KEY: Mark(mark)}
    except ValueError:
        known = ", ".join(repr(each.value) for each in Mark)
        raise ImproperlyConfiguredException(f"dto_field({mark!r}): a mark is one of {known}") from None


def mark_of(notes: Iterable[object]) -> Mark | None:
    """The mark in a field's metadata ``notes``: mappings, and objects with a mapping in ``extra``."""
    for note in notes:
        mapping = note if isinstance(note, Mapping) else getattr(note, "extra", None)
        if isinstance(mapping, Mapping) and _KEY in mapping:
            return Mark(mapping[_KEY])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DTOConfig:
    """Which fields a DTO transfers, and their names on the wire.

    Field paths are separated by dots: ``"address.street"`` is a field of a nested model. A number is the position of a
    type argument: ``"pets.0.id"`` is a field of the model in ``pets: list[Pet]``, and ``"by_name.1.id"`` one of the
    model in ``by_name: dict[str, Pet]``. ``Optional`` has no number.

    :raises ImproperlyConfiguredException: a value is invalid, or both ``include`` and ``exclude`` are given.
    """

    include: Collection[str] = frozenset()
    """Paths that are transferred; all if empty."""
    exclude: Collection[str] = frozenset()
    """Paths that are not transferred."""
    rename_fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names on the wire by path; they override ``rename_strategy``."""
    rename_strategy: RenameStrategy | None = None
    """The strategy for the names of all other fields, also in nested models."""
    max_nested_depth: int | None = 1
    """How many levels of nested models are transferred; deeper fields are left out. ``None`` means no limit."""
    partial: bool = False
    """Clients may leave out any field."""
    forbid_unknown_fields: bool = False
    """A message with an unknown or excluded field is invalid; otherwise such fields are ignored."""
    underscore_fields_private: bool = True
    """Unmarked fields with a leading underscore are private."""

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            value: object = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Collection):
                raise ImproperlyConfiguredException(f"DTOConfig({name}={value!r}): write {name}={{{value!r}}}")
            object.__setattr__(self, name, frozenset(value))
        if self.include and self.exclude:
            raise ImproperlyConfiguredException("DTOConfig: include and exclude are both given; give one of them")
        if self.max_nested_depth is not None and self.max_nested_depth < 0:
            raise ImproperlyConfiguredException(
                f"DTOConfig(max_nested_depth={self.max_nested_depth}): it is 0 or more, or None for no limit"
            )
        renamer(self.rename_strategy)


def renamer(strategy: RenameStrategy | None) -> Callable[[str], str] | None:
    """The function of a strategy.

    :raises ImproperlyConfiguredException: there is no such strategy.
    """
    if strategy is None or callable(strategy):
        return strategy
    if strategy not in _STRATEGIES:
        known = ", ".join(map(repr, get_args(get_args(RenameStrategy)[0])))
        raise ImproperlyConfiguredException(
            f"DTOConfig(rename_strategy={strategy!r}): it is one of {known}, or a function of the name"
        )
    return _STRATEGIES[strategy]


def _camel(name: str) -> str:
    first, *rest = _words(name)
    return first + "".join(map(_capital, rest))


def _pascal(name: str) -> str:
    return "".join(map(_capital, _words(name)))


def _kebab(name: str) -> str:
    return "-".join(_words(name))


def _words(name: str) -> list[str]:
    return [word for word in name.split("_") if word] or [name]


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


_STRATEGIES: Final[Mapping[str, Callable[[str], str]]] = {
    "lower": str.lower,
    "upper": str.upper,
    "camel": _camel,
    "pascal": _pascal,
    "kebab": _kebab,
}
