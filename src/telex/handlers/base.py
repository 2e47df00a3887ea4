"""What every kind of handler is: a frozen description that can be merged under layers and compiled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeAlias, cast

from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException
from telex.layers import Layer, LayerOptions
from telex.plans import Build, Run
from telex.signatures import AnyCallable, Signature, describe
from telex.types import Mode

__all__ = ("Handler", "Paths", "read_paths")

Paths: TypeAlias = str | Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class Handler(ABC):
    """A handler as it was described: nothing is resolved yet, nothing will change.

    ``fn`` is the user's function, ``paths`` where it is served, ``name`` what ``route_reverse`` finds it by, ``layer``
    its own options.
    """

    kind: ClassVar[str]

    fn: AnyCallable
    paths: tuple[str, ...]
    name: str | None = None
    layer: Layer = field(default_factory=Layer)
    send_mode: Mode = "text"
    identity: object = field(default_factory=object, compare=False, repr=False)
    """What ``route_reverse`` knows the handler by: copies that are bound to an instance keep it."""

    @property
    def where(self) -> str:
        """Who and where, for errors and tables."""
        return describe(self.fn)

    @abstractmethod
    def compile_run(self, build: Build) -> Run:
        """What this handler does with a connection, compiled against ``build.graph``."""

    def refuse_idle(self, build: Build, options: Sequence[str], why: str) -> None:
        """Refuse layered options that are given on the handler itself and have no effect there."""
        given = [option for option in options if getattr(self.layer, option) not in (Empty, None, (), {})]
        if given:
            raise build.wrong(f"{given[0]}= has no effect: {why}")

    def bound_to(self, owner: object) -> Self:
        """This handler with ``fn`` as a method of ``owner``."""
        return replace(self, fn=self.fn.__get__(owner))

    @property
    def opt(self) -> dict[str, object]:
        """The user's own options given on the handler itself."""
        return dict(self.layer.opt)


def read_paths(path: Paths) -> tuple[str, ...]:
    """``path`` as a tuple; none is ``/``."""
    if path is None:
        return ("/",)
    paths = (path,) if isinstance(path, str) else tuple(path)
    return paths or ("/",)


def refuse_parameters(build: Build, signature: Signature, names: Sequence[str], instead: str) -> None:
    """Refuse parameters that a kind of handler does not have."""
    for name in names:
        if name in signature:
            raise build.wrong(f"{name!r} is not there for {instead}")


def check_function(fn: object, decorator: str) -> None:
    """Refuse what cannot be decorated.

    :raises ImproperlyConfiguredException: ``fn`` is not callable, or a handler already.
    """
    if isinstance(fn, Handler):
        raise ImproperlyConfiguredException(f"{describe(fn.fn)} is a handler already: decorate it once")
    if not callable(fn):
        raise ImproperlyConfiguredException(f"@{decorator} is given {fn!r}: it decorates a function")


def check_mode(mode: object, option: str, where: str) -> None:
    """Refuse anything but ``text`` and ``binary``."""
    if mode not in {"text", "binary"}:
        raise ImproperlyConfiguredException(f"{where}: {option} is 'text' or 'binary', not {mode!r}")


def check_count(value: object, option: str, where: str) -> None:
    """Refuse anything but a whole number from 1."""
    if not isinstance(value, int) or value < 1:
        raise ImproperlyConfiguredException(f"{where}: {option} is a whole number from 1, not {value!r}")


def own_options(options: Mapping[str, Any], known: type[LayerOptions], where: str) -> tuple[dict[str, Any], Layer]:
    """The handler's own options, which ``known`` has beside the layered ones, and the layer that the others make."""
    names = frozenset(known.__annotations__) - frozenset(LayerOptions.__annotations__)
    own = {key: value for key, value in options.items() if key in names}
    layered = {key: value for key, value in options.items() if key not in names}
    return own, Layer.read(cast("LayerOptions", layered), where)


def discard(_: bool) -> Exception | bool:
    """For :attr:`EventReader.on_unread`: ignore what the client sends."""
    return False
