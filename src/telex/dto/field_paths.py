"""The path of an annotation during compilation, and the configured paths that start there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from telex.dto.config import DTOConfig
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("FieldPath", "Steps")

Steps: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldPath:
    """The path of an annotation inside the annotation of a handler.

    ``include`` is ``None`` if everything is included. ``lazy``: the model is created later, by ``DTOData``. ``plain``:
    the value is a dictionary from which the library of an outer model creates the model. ``checked``: the first names
    of the configured paths have been checked.
    """

    dto: str
    trail: str
    include: frozenset[Steps] | None
    exclude: frozenset[Steps]
    rename: frozenset[tuple[Steps, str]]
    depth: int = 0
    lazy: bool = False
    plain: bool = False
    checked: bool = False

    @classmethod
    def of(cls, config: DTOConfig, dto: str) -> FieldPath:
        """The path of a DTO's own model."""
        return cls(
            dto,
            "",
            frozenset(map(_steps, config.include)) if config.include else None,
            frozenset(map(_steps, config.exclude)),
            frozenset((_steps(path), name) for path, name in config.rename_fields.items()),
        )

    def step(self, name: str, trail: str) -> FieldPath:
        """The path of a field, or of a type argument by its number."""
        whole = self.include is None or (name,) in self.include
        return replace(
            self,
            trail=trail,
            checked=False,
            include=None if whole else _after(self.include or (), name),
            exclude=_after(self.exclude, name),
            rename=frozenset((steps[1:], new) for steps, new in self.rename if steps[0] == name and len(steps) > 1),
        )

    def key(self, *, limited: bool) -> object:
        """Paths with the same key compile to the same node. The depth is included if it is ``limited``."""
        paths = (self.include, self.exclude, self.rename)
        return (*paths, self.lazy, self.plain, self.depth if limited else min(self.depth, 1))

    def lazily(self) -> FieldPath:
        """The same path for ``DTOData``."""
        return replace(self, lazy=True)

    def includes(self, name: str) -> bool:
        """Whether the field or a part of it is included, and the whole field is not excluded."""
        if (name,) in self.exclude:
            return False
        return self.include is None or any(steps[0] == name for steps in self.include)

    def new_name(self, name: str) -> str | None:
        """The field's name in ``rename_fields``."""
        return next((new for steps, new in self.rename if steps == (name,)), None)

    def check_names(self, known: Collection[str], model: str) -> None:
        """Raise for configured paths that name a field which the model does not have.

        :raises ImproperlyConfiguredException: with the path, the model and the nearest field.
        """
        for option, steps in () if self.checked else self._paths():
            if steps[0] not in known:
                near = difflib.get_close_matches(steps[0], known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}"
                raise self.wrong(f"{option} names {steps[0]!r}, but {model} has no such field; {hint}")

    def check_numbers(self, count: int, annotation: object) -> None:
        """Raise for configured paths that do not continue with the number of one of ``count`` type arguments.

        :raises ImproperlyConfiguredException: with the path and its annotation.
        """
        known = {str(number) for number in range(count)}
        for option, steps in self._paths() if self.depth else ():
            if steps[0] not in known:
                raise self.wrong(
                    f"{option} continues with {'.'.join(steps)!r} after {self.trail}, which is {annotation!r} and has"
                    " no fields; after a collection, write the number of the type argument, as in 'pets.0.id'"
                )

    def wrong(self, problem: str) -> ImproperlyConfiguredException:
        """An error about this DTO."""
        return ImproperlyConfiguredException(f"{self.dto}: {problem}")

    def _paths(self) -> Iterable[tuple[str, Steps]]:
        yield from (("include", steps) for steps in sorted(self.include or ()))
        yield from (("exclude", steps) for steps in sorted(self.exclude))
        yield from (("rename_fields", steps) for steps, _ in sorted(self.rename))


def _steps(path: str) -> Steps:
    return tuple(path.split("."))


def _after(paths: Iterable[Steps], name: str) -> frozenset[Steps]:
    return frozenset(steps[1:] for steps in paths if steps[0] == name and len(steps) > 1)
