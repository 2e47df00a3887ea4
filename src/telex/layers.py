"""Options of the app, of routers, controllers and handlers, and the rules that merge them.

Users write ``LayerOptions``; the code reads ``Layer``. A test checks that both have the same keys. A new option needs
one key, one field and one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import iscoroutinefunction
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict, TypeVar, cast

from telex.auth.identity import Authenticate
from telex.connection import WebSocket
from telex.datastructures import Empty, EmptyType
from telex.di import Provide
from telex.dto.base import AbstractDTO
from telex.exceptions import ImproperlyConfiguredException
from telex.limits.rates import Limit
from telex.params import Parameter
from telex.signatures import AnyCallable, positional_count
from telex.types import ExceptionHandler, Middleware, TypeDecoder, TypeEncoder

__all__ = ("Denials", "Guard", "Layer", "LayerOptions", "OnInvalidMessage")

Denials: TypeAlias = Literal["auto", "http", "socket"]
OnInvalidMessage: TypeAlias = Literal["reply", "close"]
Guard: TypeAlias = Callable[..., Any]
"""``guard(socket)`` or ``guard(socket, handler)``, sync or async. It refuses by raising or by returning ``False``.

Further parameters, keyword-only parameters and parameters named after a dependency or path parameter are injected.
"""


class LayerOptions(TypedDict, total=False):
    """The options of every layer. By default the value of the layer nearest to the handler is used."""

    dependencies: Mapping[str, Provide | AnyCallable]
    """Providers by the name of the parameter that they fill. Merged; the nearest layer overrides."""
    authenticate: Authenticate | None
    """Who the client is: ``Authenticate(provider, cookie="session")``. Found out before the guards run; ``None`` lets
    everyone in."""
    guards: Sequence[Guard]
    """Functions that run before accept, the app's first. A guard raises to refuse; dependencies are injected.
    Stacked."""
    middleware: Sequence[Middleware | Any]
    """ASGI middleware, the app's outermost. Stacked."""
    exception_handlers: Mapping[type[Exception] | int, ExceptionHandler]
    """Handlers by exception class (looked up by MRO) or HTTP status. Merged; the nearest layer overrides."""
    dto: type[AbstractDTO[Any]] | None
    """The data transfer object that reads messages, and that writes replies if ``return_dto`` is not given."""
    return_dto: type[AbstractDTO[Any]] | None
    """The data transfer object that writes replies; ``None`` disables ``dto`` for replies."""
    type_encoders: Mapping[type, TypeEncoder]
    """Functions that encode types that JSON lacks. Merged; the nearest layer overrides."""
    type_decoders: Sequence[TypeDecoder]
    """Functions that decode types that JSON lacks. Stacked; those of the nearest layer are tried first."""
    websocket_class: type[WebSocket[Any, Any, Any]] | None
    """The class of ``socket``; ``None`` is the same as not given."""
    allowed_origins: Sequence[str] | None
    """Origins that browsers may connect from, in addition to the app's host: ``https://app.example.com``,
    ``*.example.com``, a bare host, or ``*`` for all."""
    denials: Denials
    """How a handshake is refused. ``auto`` (default): a client that offers telex.v1 and sends an ``Origin`` is
    accepted, gets one error frame and is closed with 4000 + status, because browsers do not show the status of a
    response; others get an HTTP response. ``http``: all get an HTTP response. ``socket``: as ``auto``, also without an
    ``Origin``. A foreign ``Origin`` always gets an HTTP response."""
    on_invalid_message: OnInvalidMessage
    """``reply`` (default) answers an invalid message with an error frame; ``close`` closes with 1007."""
    max_message_size: int
    """Bytes of one message (default 1 MiB); a larger one closes with 1009."""
    max_queued_messages: int
    """Messages read ahead while a handler is busy (default 16); then TCP slows the client down."""
    connect_limit: Sequence[Limit] | Limit | None
    """How many handshakes one client may make: ``[Limit(20, per=60, key=client_ip)]``; more are refused with 429.
    Without one that counts by ``client_ip``, an address of the internet has 50 a second, 2,000 at once; ``None`` lifts
    that. Stacked."""
    max_connections_per: tuple[Callable[[Any], object], int] | None
    """Who may have how many connections of this process open: ``(client_ip, 50)``. By default an address of the
    internet has 2,000; ``None`` lifts that."""
    message_limit: Limit | None
    """How many messages a client may send: ``Limit(50, per=1, burst=100)``. Counted for each connection; ``None`` lifts
    the limit of an outer layer."""
    byte_limit: Limit | None
    """How many bytes of messages a client may send: ``Limit(1 << 20, per=1)``. Counted for each connection."""
    notices: bool
    """Whether ``app.users.notify`` reaches the connection (default); ``False`` where its client expects other messages
    alone. ``app.users.close`` always does."""
    call_timeout: float | None
    """Seconds that a call of telex.v1 may take, waiting included; for an answer in parts, until its first part. Then
    the handler is cancelled and the caller gets the error ``timeout``. By default there is no limit."""
    max_calls: int
    """Calls and notifies of one telex.v1 connection in work or waiting (default 32): the credit of the client."""
    max_streams: int
    """Answers in parts that are open at once on one telex.v1 connection (default 8)."""
    errors: Sequence[type[Exception]]
    """Exceptions that callers of telex.v1 may see: their code, text and public attributes. Stacked."""
    opt: Mapping[str, Any]
    """User-defined values, for example for guards. Merged; the nearest layer overrides."""
    signature_namespace: Mapping[str, Any]
    """Names that annotations use and that cannot be imported at run time. Merged; the nearest layer overrides."""
    parameters: Mapping[str, Parameter]
    """How parameters with these names are read from the handshake. Merged; the nearest layer overrides."""


Rule: TypeAlias = Literal["nearest", "stacked", "nearest_first", "merged"]
T = TypeVar("T")


_NEAREST: Final[Mapping[str, Rule]] = {"rule": "nearest"}
_STACKED: Final[Mapping[str, Rule]] = {"rule": "stacked"}
_NEAREST_FIRST: Final[Mapping[str, Rule]] = {"rule": "nearest_first"}
_MERGED: Final[Mapping[str, Rule]] = {"rule": "merged"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The options of one layer, or of several merged."""

    dependencies: Mapping[str, Provide] = field(default_factory=dict, metadata=_MERGED)
    authenticate: Authenticate | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    guards: tuple[Guard, ...] = field(default=(), metadata=_STACKED)
    middleware: tuple[Any, ...] = field(default=(), metadata=_STACKED)
    exception_handlers: Mapping[type[Exception] | int, ExceptionHandler] = field(default_factory=dict, metadata=_MERGED)
    dto: type[AbstractDTO[Any]] | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    return_dto: type[AbstractDTO[Any]] | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    type_encoders: Mapping[type, TypeEncoder] = field(default_factory=dict, metadata=_MERGED)
    type_decoders: tuple[TypeDecoder, ...] = field(default=(), metadata=_NEAREST_FIRST)
    websocket_class: type[WebSocket[Any, Any, Any]] | EmptyType = field(default=Empty, metadata=_NEAREST)
    allowed_origins: tuple[str, ...] | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    denials: Denials | EmptyType = field(default=Empty, metadata=_NEAREST)
    on_invalid_message: OnInvalidMessage | EmptyType = field(default=Empty, metadata=_NEAREST)
    max_message_size: int | EmptyType = field(default=Empty, metadata=_NEAREST)
    max_queued_messages: int | EmptyType = field(default=Empty, metadata=_NEAREST)
    connect_limit: tuple[Limit | None, ...] = field(default=(), metadata=_STACKED)
    max_connections_per: tuple[Callable[[Any], object], int] | EmptyType | None = field(
        default=Empty, metadata=_NEAREST
    )
    message_limit: Limit | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    byte_limit: Limit | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    notices: bool | EmptyType = field(default=Empty, metadata=_NEAREST)
    call_timeout: float | EmptyType | None = field(default=Empty, metadata=_NEAREST)
    max_calls: int | EmptyType = field(default=Empty, metadata=_NEAREST)
    max_streams: int | EmptyType = field(default=Empty, metadata=_NEAREST)
    errors: tuple[type[Exception], ...] = field(default=(), metadata=_STACKED)
    opt: Mapping[str, Any] = field(default_factory=dict, metadata=_MERGED)
    signature_namespace: Mapping[str, Any] = field(default_factory=dict, metadata=_MERGED)
    parameters: Mapping[str, Parameter] = field(default_factory=dict, metadata=_MERGED)

    @classmethod
    def read(cls, options: LayerOptions, where: str) -> Self:
        """The options of one layer, checked.

        :raises ImproperlyConfiguredException: an unknown option or an invalid value; the text begins with ``where``.
        """
        unknown = set(options) - set(_RULES)
        if unknown:
            raise ImproperlyConfiguredException(
                f"{where}: unknown option {', '.join(map(repr, sorted(unknown)))};"
                f" known are {', '.join(sorted(_RULES))}; your own values go into opt={{...}}"
            )
        values = {name: _READ.get(name, _as_given)(value, where) for name, value in options.items()}
        return cls(**{name: _frozen(name, value) for name, value in values.items()})

    def over(self, outer: Layer) -> Layer:
        """A new layer: this one merged with ``outer``, a layer further from the handler."""
        merged = {name: _MERGE[rule](getattr(outer, name), getattr(self, name)) for name, rule in _RULES.items()}
        return Layer(**merged)


def nearest(value: T | EmptyType, default: T) -> T:
    """``value``, or ``default`` if no layer sets one."""
    return default if isinstance(value, EmptyType) else value


def _frozen(name: str, value: Any) -> Any:
    rule = _RULES[name]
    if rule == "merged":
        return dict(value or {})
    return tuple(value or ()) if rule in {"stacked", "nearest_first"} else value


def _as_given(value: Any, _: str) -> Any:
    return value


def _read_dependencies(value: Mapping[str, Any], where: str) -> dict[str, Provide]:
    providers = {name: each if isinstance(each, Provide) else Provide(each) for name, each in value.items()}
    names: dict[int, str] = {}
    for name, provider in providers.items():
        first = names.setdefault(id(provider), name)
        if first != name:
            raise ImproperlyConfiguredException(
                f"{where}: one Provide object is given as {first!r} and as {name!r}: write one Provide(...) for each"
            )
    return providers


def _read_origins(value: Any, where: str) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise ImproperlyConfiguredException(f"{where}: allowed_origins={value!r} is text: write [{value!r}]")
    return None if value is None else tuple(value)


def _read_size(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ImproperlyConfiguredException(f"{where}: a limit must be a whole number from 1, not {value!r}")
    return value


def _read_connect_limit(value: Any, where: str) -> tuple[Limit | None, ...]:
    limits = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for limit in limits:
        if limit is None:
            continue
        if not isinstance(limit, Limit):
            raise ImproperlyConfiguredException(
                f"{where}: connect_limit takes [Limit(20, per=60, key=client_ip)], or None, not {limit!r}"
            )
        if limit.key is None:
            raise ImproperlyConfiguredException(
                f"{where}: {limit!r} has no key=, so that one client could use it up for all: write key=client_ip,"
                " key=user, or key=lambda socket: 'all'"
            )
        _check_key(limit.key, f"{where}: the key of connect_limit")
        if limit.on_exceed != "wait":
            raise ImproperlyConfiguredException(
                f"{where}: on_exceed={limit.on_exceed!r} has no effect on handshakes, which are refused with 429:"
                " remove it"
            )
    return limits


def _read_max_connections(value: Any, where: str) -> tuple[Callable[[Any], object], int] | None:
    if value is None:
        return None
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        raise ImproperlyConfiguredException(
            f"{where}: max_connections_per is who is counted and how many, (client_ip, 50), or None, not {value!r}"
        )
    key, most = value
    _check_key(key, f"{where}: the key of max_connections_per")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise ImproperlyConfiguredException(
            f"{where}: max_connections_per=(…, {most!r}) lets nobody in: give a whole number from 1, or None"
        )
    return key, most


def _check_key(key: Any, what: str) -> None:
    if not callable(key) or iscoroutinefunction(key) or positional_count(key) != 1:
        raise ImproperlyConfiguredException(
            f"{what} is a sync function of the socket, such as telex.limits.client_ip, not {key!r}:"
            " write def key(socket)"
        )


def _read_message_limit(value: Any, where: str) -> Limit | None:
    if value is not None and not isinstance(value, Limit):
        raise ImproperlyConfiguredException(f"{where}: a limit of messages is Limit(50, per=1), or None, not {value!r}")
    if value is not None and (value.key is not None or value.store is not None):
        raise ImproperlyConfiguredException(
            f"{where}: message_limit and byte_limit count each connection by itself, so key= and store= have no effect:"
            " remove them, or limit the handshakes with connect_limit=[...]"
        )
    return value


def _read_timeout(value: Any, where: str) -> float | None:
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0):
        raise ImproperlyConfiguredException(f"{where}: call_timeout must be seconds above 0, or None, not {value!r}")
    return cast("float | None", value)


def _read_errors(value: Any, where: str) -> tuple[type[Exception], ...]:
    for each in value:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise ImproperlyConfiguredException(f"{where}: errors= takes classes of exceptions, not {each!r}")
    return tuple(value)


def _read_invalid(value: Any, where: str) -> OnInvalidMessage:
    if value not in {"reply", "close"}:
        raise ImproperlyConfiguredException(f"{where}: on_invalid_message is 'reply' or 'close', not {value!r}")
    return cast("OnInvalidMessage", value)


def _read_denials(value: Any, where: str) -> Denials:
    if value not in {"auto", "http", "socket"}:
        raise ImproperlyConfiguredException(f"{where}: denials is 'auto', 'http' or 'socket', not {value!r}")
    return cast("Denials", value)


def _read_notices(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ImproperlyConfiguredException(f"{where}: notices is True or False, not {value!r}")
    return value


def _read_class(value: Any, where: str) -> type[WebSocket[Any, Any, Any]] | EmptyType:
    if value is None:
        return Empty
    if not (isinstance(value, type) and issubclass(value, WebSocket)):
        raise ImproperlyConfiguredException(f"{where}: websocket_class must be a subclass of WebSocket, not {value!r}")
    return value


def _read_dto(value: Any, where: str) -> type[AbstractDTO[Any]] | None:
    if value is not None and not (isinstance(value, type) and issubclass(value, AbstractDTO)):
        raise ImproperlyConfiguredException(
            f"{where}: {value!r} is no DTO: write DataclassDTO[Model], MsgspecDTO[Model] or another class of telex.dto"
        )
    return value


def _read_authenticate(value: Any, where: str) -> Authenticate | None:
    if value is not None and not isinstance(value, Authenticate):
        raise ImproperlyConfiguredException(
            f"{where}: authenticate= is Authenticate(provider, cookie='session'), or None, not {value!r}"
        )
    return value


_READ: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "authenticate": _read_authenticate,
    "dependencies": _read_dependencies,
    "dto": _read_dto,
    "return_dto": _read_dto,
    "allowed_origins": _read_origins,
    "max_message_size": _read_size,
    "max_queued_messages": _read_size,
    "max_calls": _read_size,
    "max_streams": _read_size,
    "connect_limit": _read_connect_limit,
    "max_connections_per": _read_max_connections,
    "message_limit": _read_message_limit,
    "byte_limit": _read_message_limit,
    "call_timeout": _read_timeout,
    "errors": _read_errors,
    "denials": _read_denials,
    "notices": _read_notices,
    "on_invalid_message": _read_invalid,
    "websocket_class": _read_class,
}

_RULES: Final[Mapping[str, Rule]] = {each.name: each.metadata["rule"] for each in fields(Layer)}

_MERGE: Final[Mapping[Rule, Callable[[Any, Any], Any]]] = {
    "nearest": lambda outer, inner: outer if inner is Empty else inner,
    "stacked": lambda outer, inner: (*outer, *inner),
    "nearest_first": lambda outer, inner: (*inner, *outer),
    "merged": lambda outer, inner: {**outer, **inner},
}
