"""The base of every kind of handler: a frozen description that is merged with layers and compiled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException
from telex.layers import Layer, LayerOptions
from telex.plans import Build, MessageShape, Operation, Run
from telex.protocol.envelope import SUBPROTOCOL
from telex.signatures import AnyCallable, Signature, describe
from telex.types import Mode

__all__ = ("ContractOptions", "FrameProtocol", "Handler", "Paths", "read_paths")

Paths: TypeAlias = str | Sequence[str] | None
FrameProtocol: TypeAlias = Literal["telex.v1"]
"""The subprotocol that a handler can be told to speak."""


class ContractOptions(LayerOptions, total=False):
    """What annotations do not tell of a handler's messages. It is for documents and generated clients."""

    pushes: Any
    """The type of the messages that the handler sends besides its answers: ``Joined | Left``."""
    asks: Mapping[Any, Any]
    """What the handler asks clients with ``socket.call``, and the types of the answers: ``{Confirm: Answer}``."""


@dataclass(frozen=True, kw_only=True)
class Handler(ABC):
    """The immutable description of a handler, before it is compiled.

    ``fn`` is the user's function, ``paths`` the paths that it serves, ``name`` its name for ``route_reverse``, and
    ``layer`` the options that are given on the handler.
    """

    kind: ClassVar[str]
    opens_others: ClassVar[bool] = False

    fn: AnyCallable
    paths: tuple[str, ...]
    name: str | None = None
    layer: Layer = field(default_factory=Layer)
    send_mode: Mode = "text"
    pushes: Any = None
    asks: Mapping[Any, Any] | None = None
    identity: object = field(default_factory=object, compare=False, repr=False)
    """The key of the handler for ``route_reverse``; copies that are bound to an instance keep it."""

    @property
    def where(self) -> str:
        """The handler's function, file and line, for errors and tables."""
        return describe(self.fn)

    @abstractmethod
    def compile_run(self, build: Build) -> Run:
        """Compile the function that serves a connection, against ``build.graph``."""

    def refuse_idle(self, build: Build, options: Sequence[str], why: str) -> None:
        """Raise if one of ``options``, which have no effect on this kind of handler, is given on the handler itself."""
        given = [option for option in options if getattr(self.layer, option) not in (Empty, None, (), {})]
        if given:
            raise build.wrong(f"{given[0]}= has no effect: {why}")

    def describe_sent(self, build: Build) -> None:
        """Add what the handler says of its messages to ``build``, for API documents."""
        if self.asks is not None and not isinstance(self.asks, Mapping):
            raise build.wrong(f"asks= is a mapping of types, {{Confirm: Answer}}, not {self.asks!r}")
        if self.pushes is not None:
            build.pushes = (*build.pushes, MessageShape(self.pushes, self.send_mode))
        build.asks = tuple(
            Operation(MessageShape(asked, self.send_mode), MessageShape(answer, self.send_mode))
            for asked, answer in (self.asks or {}).items()
        )

    def bound_to(self, owner: object) -> Self:
        """This handler with ``fn`` as a method of ``owner``."""
        return replace(self, fn=self.fn.__get__(owner))

    @property
    def opt(self) -> dict[str, object]:
        """The ``opt`` values that are given on the handler itself."""
        return dict(self.layer.opt)


def read_paths(path: Paths) -> tuple[str, ...]:
    """``path`` as a tuple; ``None`` means ``/``."""
    if path is None:
        return ("/",)
    paths = (path,) if isinstance(path, str) else tuple(path)
    return paths or ("/",)


def refuse_parameters(build: Build, signature: Signature, names: Sequence[str], instead: str) -> None:
    """Raise if the function has a parameter that this kind of handler does not support."""
    for name in names:
        if name in signature:
            raise build.wrong(f"parameter {name!r} is not available in {instead}")


def check_function(fn: object, decorator: str) -> None:
    """Check that ``fn`` can be decorated.

    :raises ImproperlyConfiguredException: ``fn`` is not callable, or is already a handler.
    """
    if isinstance(fn, Handler):
        raise ImproperlyConfiguredException(f"{describe(fn.fn)} is a handler already: decorate it once")
    if not callable(fn):
        raise ImproperlyConfiguredException(f"@{decorator} is given {fn!r}: it decorates a function")


def check_mode(mode: object, option: str, where: str) -> None:
    """Raise unless ``mode`` is ``text`` or ``binary``."""
    if mode not in {"text", "binary"}:
        raise ImproperlyConfiguredException(f"{where}: {option} is 'text' or 'binary', not {mode!r}")


def check_protocol(protocol: object, where: str) -> None:
    """Raise unless ``protocol`` is ``None`` or the subprotocol of Telex."""
    if protocol not in {None, SUBPROTOCOL}:
        raise ImproperlyConfiguredException(
            f"{where}: protocol= is {SUBPROTOCOL!r}, not {protocol!r}: pass other subprotocols to socket.accept(...)"
        )


def check_count(value: object, option: str, where: str) -> None:
    """Raise unless ``value`` is a whole number from 1."""
    if not isinstance(value, int) or value < 1:
        raise ImproperlyConfiguredException(f"{where}: {option} is a whole number from 1, not {value!r}")


def own_options(options: Mapping[str, Any], known: type[LayerOptions], where: str) -> tuple[dict[str, Any], Layer]:
    """Split ``options`` into those that only ``known`` declares and a layer of the layered ones."""
    names = frozenset(known.__annotations__) - frozenset(LayerOptions.__annotations__)
    own = {key: value for key, value in options.items() if key in names}
    layered = {key: value for key, value in options.items() if key not in names}
    return own, Layer.read(cast("LayerOptions", layered), where)


def discard(_: bool) -> Exception | bool:
    """For :attr:`EventReader.on_unread`: drop all messages of the client."""
    return False
