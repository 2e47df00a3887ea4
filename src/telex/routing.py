"""``Router`` and ``Controller``, the flattening of layers, and the lookup of paths by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, Unpack, cast

from telex.channels.hub import GeneratedRoutes
from telex.exceptions import ImproperlyConfiguredException, NoRouteMatchFoundException
from telex.handlers.base import Handler
from telex.handlers.channel import generated_handlers
from telex.handlers.listener import WebsocketListener
from telex.layers import Layer, LayerOptions
from telex.paths import PathTemplate
from telex.signatures import describe

__all__ = ("Controller", "RouteNames", "Router", "Row", "flatten")

RouteHandler: TypeAlias = "Handler | Router | type[Controller] | type[WebsocketListener] | GeneratedRoutes"


class Controller:
    """A class that groups handlers: its attributes are layered options, its decorated methods are the handlers.

    Register the class. One instance is created for each registration, and its methods serve all connections.
    """

    path: ClassVar[str] = "/"

    def __init__(self, owner: object) -> None:
        self.owner: object = owner

    def handlers(self) -> Iterator[Handler]:
        """The decorated methods, bound to this instance, and nested listener classes."""
        names = dict.fromkeys(name for kind in reversed(type(self).__mro__) for name in vars(kind))
        for name in names:
            member: Any = inspect.getattr_static(type(self), name)
            if isinstance(member, staticmethod):
                member = member.__func__
                if isinstance(member, Handler):
                    yield member
            elif isinstance(member, Handler):
                yield member.bound_to(self)
            elif isinstance(member, type) and issubclass(member, WebsocketListener):
                yield member.describe(self)

    def layer(self) -> Layer:
        """The layered options from the class's attributes."""
        given = {name: getattr(self, name) for name in LayerOptions.__annotations__ if hasattr(type(self), name)}
        return Layer.read(cast("LayerOptions", given), describe(type(self)))


class Router:
    """Handlers under a common path and common options. It can be registered in several apps and other routers."""

    def __init__(
        self, path: str = "/", *, route_handlers: Sequence[RouteHandler] = (), **options: Unpack[LayerOptions]
    ) -> None:
        self.path: str = path
        self.route_handlers: list[RouteHandler] = list(route_handlers)
        self.layer: Layer = Layer.read(options, f"Router({path!r})")

    def register(self, route_handler: RouteHandler) -> None:
        """Add a handler. Call this before the router is registered in an app."""
        self.route_handlers.append(route_handler)


@dataclass(frozen=True, slots=True)
class Row:
    """One handler at one path with the options of all its layers."""

    path: str
    handler: Handler
    layer: Layer
    sources: tuple[object, ...]
    """What it was registered with, from outside to inside: routers, controllers, and the handler's identity."""


def flatten(
    handlers: Iterable[RouteHandler],
    layer: Layer,
    owner: object,
    prefix: str = "",
    sources: tuple[object, ...] = (),
) -> Iterator[Row]:
    """Every handler at every path, with the layers above it merged. Creates the instances of handler classes.

    :raises ImproperlyConfiguredException: an item of the list is no handler.
    """
    for each in handlers:
        if isinstance(each, Handler):
            yield from _rows(each, layer, prefix, sources)
        elif isinstance(each, Router):
            path, within = _join(prefix, each.path), (*sources, each)
            yield from flatten(each.route_handlers, each.layer.over(layer), each, path, within)
        elif isinstance(each, type) and issubclass(each, Controller):
            controller = each(owner)
            path = _join(prefix, controller.path)
            within = (*sources, each)
            yield from flatten(controller.handlers(), controller.layer().over(layer), controller, path, within)
        elif isinstance(each, GeneratedRoutes):
            yield from flatten(generated_handlers(each), layer, owner, prefix, (*sources, each.hub))
        elif isinstance(each, type) and issubclass(each, WebsocketListener):
            yield from _rows(each.describe(owner), layer, prefix, sources)
        else:
            raise ImproperlyConfiguredException(_not_a_handler(each))


def _rows(handler: Handler, layer: Layer, prefix: str, sources: tuple[object, ...]) -> Iterator[Row]:
    merged = handler.layer.over(layer)
    for path in handler.paths:
        yield Row(_join(prefix, path), handler, merged, (*sources, handler.identity))


def _not_a_handler(given: object) -> str:
    if isinstance(given, (WebsocketListener, Controller)):
        return f"route_handlers has an instance of {type(given).__qualname__}: register the class itself"
    if callable(given):
        return f"route_handlers has {describe(given)}, which is not decorated: add @websocket_listener or @websocket"
    return f"route_handlers has {given!r}: it takes handlers, routers, controllers and listener classes"


def _join(prefix: str, path: str) -> str:
    parts = [part.strip("/") for part in (prefix, path)]
    return "/" + "/".join(part for part in parts if part)


class RouteNames:
    """Finds paths by a handler's name, or by the handler itself."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[PathTemplate]] = {}
        self._owners: dict[str, Handler] = {}
        self._by_identity: dict[int, list[PathTemplate]] = {}

    def add(self, handler: Handler, template: PathTemplate) -> None:
        """Add one path of ``handler``.

        :raises ImproperlyConfiguredException: another handler has the same name.
        """
        self._by_identity.setdefault(id(handler.identity), []).append(template)
        if handler.name is None:
            return
        owner = self._owners.setdefault(handler.name, handler)
        if owner.identity is not handler.identity:
            raise ImproperlyConfiguredException(
                f"{handler.where} and {owner.where} are both named {handler.name!r}: rename one of them"
            )
        self._by_name.setdefault(handler.name, []).append(template)

    def reverse(self, target: object, parameters: Mapping[str, Any]) -> str:
        """The path of ``target`` (a name, a handler or a listener class) that takes exactly these parameters.

        :raises NoRouteMatchFoundException: no path matches.
        """
        name = target if isinstance(target, str) else describe(getattr(target, "fn", target))
        identity = target.identity if isinstance(target, Handler) else target
        known = self._by_name.get(target, ()) if isinstance(target, str) else self._by_identity.get(id(identity), ())
        if not known:
            raise NoRouteMatchFoundException(f"no handler is named {name!r}")
        filled = (template.fill(parameters) for template in known)
        found = next((path for path in filled if path is not None), None)
        if found is None:
            takes = "; ".join(template.path for template in known)
            raise NoRouteMatchFoundException(f"{name!r} does not take {dict(parameters)!r}: its paths are {takes}")
        return found
