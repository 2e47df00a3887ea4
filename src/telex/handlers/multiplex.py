"""``Multiplex``: many routes of the app on one socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Unpack

from telex.connection import Socket
from telex.defaults import MAX_MESSAGE_SIZE
from telex.event_reader import supervised
from telex.exceptions import ClientException, ImproperlyConfiguredException
from telex.handlers.base import Handler, Paths, check_count, read_paths
from telex.layers import Layer, LayerOptions, nearest
from telex.multiplex.session import MultiplexPlan, MultiplexSession
from telex.plans import Build, HandlerPlan, Run
from telex.protocol.envelope import SUBPROTOCOL
from telex.signatures import call_site, describe
from telex.types import ServerConnection

__all__ = ("Multiplex",)

MAX_ROUTES: Final = 100
_NO_EFFECT: Final = (
    "dto",
    "return_dto",
    "type_encoders",
    "type_decoders",
    "on_invalid_message",
    "max_queued_messages",
    "call_timeout",
    "max_calls",
    "max_streams",
    "errors",
)


class _All:
    """The type of ``Multiplex.ALL``."""

    def __repr__(self) -> str:
        return "Multiplex.ALL"


@dataclass(frozen=True, init=False)
class Multiplex(Handler):
    """One socket on which a client opens many routes of the app, with the frames of telex.v1.

    Each route runs as on a connection of its own: its Origin check, middleware, guards, dependencies, limits and
    cleanup apply. What goes by path *outside* of the app, such as the rules of a proxy, does not see these routes:
    hence ``routes`` lists those that may be opened.

    :param path: one path or several.
    :param routes: handlers, routers, controllers and listener classes of the same app, or ``Multiplex.ALL``. A
        Multiplex is never opened by another.
    :param max_routes: routes that are open at once on one socket (default 100).
    :param name: the handler's name for ``route_reverse`` and ``url_for``.
    :param options: layered options. They apply to the socket itself; routes have their own.
    """

    kind: ClassVar[str] = "multiplex"
    opens_others: ClassVar[bool] = True
    ALL: ClassVar[_All] = _All()

    routes: tuple[Any, ...] | _All
    max_routes: int
    site: str

    def __init__(
        self,
        path: Paths,
        *,
        routes: Sequence[Any] | _All,
        max_routes: int = MAX_ROUTES,
        name: str | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        site = call_site()
        where = f"Multiplex({path!r}) ({site})"
        if not isinstance(routes, _All):
            if isinstance(routes, (str, Handler, type)) or not isinstance(routes, Sequence):
                raise ImproperlyConfiguredException(f"{where}: routes= is a list of handlers, or Multiplex.ALL")
            routes = tuple(routes)
            if not routes:
                raise ImproperlyConfiguredException(f"{where}: routes= is empty: list handlers, or write Multiplex.ALL")
        check_count(max_routes, "max_routes", where)
        given = {
            "fn": type(self),
            "paths": read_paths(path),
            "name": name,
            "layer": Layer.read(options, where),
            "send_mode": "text",
            "identity": object(),
            "routes": routes,
            "max_routes": max_routes,
            "site": site,
        }
        for field, value in given.items():
            object.__setattr__(self, field, value)

    @property
    def where(self) -> str:
        """The ``Multiplex`` call with its paths, file and line."""
        return f"Multiplex({', '.join(map(repr, self.paths))}) ({self.site})"

    def bound_to(self, owner: object) -> Multiplex:
        """This handler unchanged: it has no function."""
        return self

    def compile_run(self, build: Build) -> Run:
        """Accept clients that offer telex.v1, and carry the routes that they open."""
        self.refuse_idle(build, _NO_EFFECT, "give it to the routes: the socket itself has no messages")
        for option in ("message_limit", "byte_limit"):
            limit = nearest(getattr(self.layer, option), None)
            if limit is not None and limit.on_exceed == "reply":
                raise build.wrong(
                    f"{option}= cannot reply on a shared socket, whose frames belong to routes:"
                    " give it on the routes, or write on_exceed='wait' or 'close'"
                )
        if build.find_route is None:
            raise build.wrong("a Multiplex is compiled by an app")
        unused = self.layer.dependencies.keys() - build.graph.provided
        if unused:
            raise build.wrong(f"no guard has a parameter {min(unused)!r} for this dependency: give it to the routes")
        served = self._served(build)
        build.opens = tuple(plan.path for plan in served)
        self._check_identity(build, served)
        plan = MultiplexPlan(
            where=build.where,
            find_route=partial(build.find_route, frozenset(map(id, served))),
            max_routes=self.max_routes,
            contract=build.contract,
            max_message_size=self._limit(build, served),
            counts=build.counts,
        )
        build.open_envelope = partial(MultiplexSession, plan)
        build.before_accept = _compress_alone

        async def run(socket: Socket, slots: list[Any]) -> None:
            if SUBPROTOCOL not in socket.scope.get("subprotocols", ()):
                raise ClientException(f"this path carries routes: offer the subprotocol {SUBPROTOCOL!r}")
            _compress_alone(socket)
            await socket.accept()
            if isinstance(socket.envelope, MultiplexSession):
                await supervised(socket.envelope.serve(slots), socket.event_reader)

        return run

    def _served(self, build: Build) -> list[HandlerPlan]:
        """The plans of the routes that may be opened."""
        plans = [plan for plan in build.compiled if not isinstance(plan.handler, Multiplex)]
        if isinstance(self.routes, _All):
            return plans
        served: dict[int, HandlerPlan] = {}
        for each in self.routes:
            if isinstance(each, Multiplex):
                raise build.wrong(f"routes= has {each.where}: a Multiplex is never opened by another")
            key = each.identity if isinstance(each, Handler) else each
            found = {id(plan): plan for plan in plans if any(source is key for source in plan.sources)}
            if not found:
                name = each.where if isinstance(each, Handler) else describe(each) if callable(each) else repr(each)
                raise build.wrong(
                    f"routes= has {name}, which is not part of this app: add it to the app's route_handlers as well"
                )
            served |= found
        return list(served.values())

    def _check_identity(self, build: Build, served: Sequence[HandlerPlan]) -> None:
        """The socket's identity is that of its routes. Without one, routes read the handshake, and their own query."""
        own = nearest(build.layer.authenticate, None)
        for plan in served:
            option = plan.layer.authenticate
            given = nearest(option, None)
            if own is None and given is not None and given.in_band:
                raise build.wrong(
                    f"{plan.where} has authenticate= with in_band=True, which takes a token of the socket:"
                    " give the Multiplex the same authenticate=, best on the app"
                )
            if own is not None and option is not None and given != own:
                raise build.wrong(
                    f"{plan.where} has another authenticate= than the socket, which has one identity for all its"
                    " routes: give both the same, best on the app, or authenticate=None for a route that is open to all"
                )

    def _limit(self, build: Build, served: Sequence[HandlerPlan]) -> int:
        """The size of the largest message: that of the route with the highest limit."""
        largest = max(served, key=_max_message_size, default=None)
        if largest is None:
            return build.max_message_size
        limit = nearest(self.layer.max_message_size, _max_message_size(largest))
        if limit < _max_message_size(largest):
            raise build.wrong(
                f"max_message_size={limit} is below the {_max_message_size(largest)} bytes of {largest.where}:"
                " raise it, or omit it"
            )
        return limit


def _compress_alone(socket: Socket) -> None:
    """Routes of different trust share the socket."""
    server: ServerConnection | None = (socket.scope.get("extensions") or {}).get("telex.activity")
    if server is not None:
        server.compress_alone()


def _max_message_size(plan: HandlerPlan) -> int:
    return nearest(plan.layer.max_message_size, MAX_MESSAGE_SIZE)
