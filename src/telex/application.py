"""``Telex``: the ASGI app. All handlers are compiled when it is constructed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, Unpack, runtime_checkable

from starlette.datastructures import URLPath
from starlette.responses import JSONResponse, Response

from telex.auth.tokens import hide_tickets
from telex.calls import Cache
from telex.channels.hub import Channels, ChannelsProvider
from telex.connection import ConnectionOptions, Socket, WebSocket
from telex.contract.document import AsyncAPIVersion, DocumentInfo, make_document
from telex.contract.serving import AsyncAPI
from telex.datastructures import State
from telex.exception_handling import ExceptionPolicy
from telex.exceptions import ImproperlyConfiguredException, NotFoundException, PermissionDeniedException
from telex.health import READINESS
from telex.layers import Layer, LayerOptions, nearest
from telex.limits.handshakes import ConnectLimits
from telex.middleware import without_fast_path
from telex.multiplex.scope import before_routing
from telex.once.runs import OnceRuns
from telex.origins import compile_origin_check
from telex.paths import PathTemplate, RouteTable, own_path
from telex.plans import Build, HandlerPlan, compile_plan
from telex.protocol.refusals import compile_refusals, offers_frames
from telex.registry import Registry
from telex.routing import RouteHandler, RouteNames, Row, flatten
from telex.signatures import positional_count
from telex.telemetry.counts import AppCounts
from telex.telemetry.labels import message_labels
from telex.types import ASGIApp, Receive, Scope, Send
from telex.users.people import Users

__all__ = ("AppConfig", "Plugin", "Telex")

_logger: Final = logging.getLogger("telex")

Hook: TypeAlias = Callable[..., Awaitable[None] | None]
"""Called at the start or end of the app, with the app or without arguments."""
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]] | AbstractAsyncContextManager[Any]


@dataclass(slots=True, kw_only=True)
class AppConfig:
    """The configuration of an app. Plugins can change it before the app is built; later changes have no effect."""

    route_handlers: list[RouteHandler]
    http: ASGIApp | None = None
    lifespan: list[Lifespan] = field(default_factory=list)
    on_startup: list[Hook] = field(default_factory=list)
    on_shutdown: list[Hook] = field(default_factory=list)
    state: State = field(default_factory=State)
    debug: bool = False
    asyncapi: AsyncAPI | None = None
    """The plugin of the app's document, if there is one."""
    options: LayerOptions = field(default_factory=LayerOptions)
    http_routes: dict[str, ASGIApp] = field(default_factory=dict)
    """ASGI apps for HTTP requests to exact paths, before ``http``: for plugins that answer such requests."""
    counts: AppCounts | None = None
    """What the app counts; without it, nothing. For plugins that show metrics."""

    @property
    def dependencies(self) -> dict[str, Any]:
        """The app layer's dependencies; a plugin can add to this dictionary."""
        dependencies = dict(self.options.get("dependencies") or {})
        self.options["dependencies"] = dependencies
        return dependencies


class DrainingServer(Protocol):
    """What Telex's server says of itself in the lifespan state."""

    @property
    def draining(self) -> asyncio.Event: ...


@runtime_checkable
class Plugin(Protocol):
    """Changes an app's configuration before it is built."""

    def on_app_init(self, config: AppConfig) -> AppConfig | None:
        """Change ``config``, or return a new one."""


class Telex:
    """The application.

    :param route_handlers: handlers, routers, controllers and listener classes.
    :param http: an ASGI app for every HTTP request. Without it the answer is 404, or 426 on a WebSocket path.
    :param lifespan: async context managers, or functions that take the app and return one, entered in order at start.
    :param on_startup: functions called at start, after the lifespans are entered, with the app or without arguments.
    :param on_shutdown: functions called at the end, before the lifespans exit.
    :param state: the values of ``app.state``, which the reserved parameter ``state`` injects.
    :param plugins: objects with ``on_app_init``.
    :param debug: send error details to clients, and log sync callables that block the event loop. Not for production.
    :param options: any layered option (:class:`telex.layers.LayerOptions`).
    :raises ImproperlyConfiguredException: every configuration error that is detectable before the first connection.
    """

    def __init__(
        self,
        route_handlers: Iterable[RouteHandler] = (),
        *,
        http: ASGIApp | None = None,
        lifespan: Sequence[Lifespan] | Lifespan = (),
        on_startup: Sequence[Hook] = (),
        on_shutdown: Sequence[Hook] = (),
        state: State | Mapping[str, Any] | None = None,
        plugins: Sequence[Plugin] = (),
        debug: bool = False,
        **options: Unpack[LayerOptions],
    ) -> None:
        config = AppConfig(
            route_handlers=list(route_handlers),
            http=http,
            lifespan=list(lifespan) if isinstance(lifespan, (list, tuple)) else [lifespan],  # type: ignore[list-item]
            on_startup=list(on_startup),
            on_shutdown=list(on_shutdown),
            state=state if isinstance(state, State) else State(dict(state or {})),
            debug=debug,
            options=options,
        )
        for plugin in plugins:
            config = plugin.on_app_init(config) or config
        self.state: Final[State] = config.state
        self.debug: Final = config.debug
        self.connections: Final = Registry()
        """Every accepted connection."""
        self._http = config.http
        self._asyncapi = config.asyncapi
        document = config.asyncapi or (AsyncAPI() if config.debug else None)
        served = {} if document is None else document.http_routes(self.asyncapi)
        self._http_routes = {**served, **config.http_routes}
        self._lifespans = tuple(config.lifespan)
        self._on_startup = tuple(config.on_startup)
        self._on_shutdown = tuple(config.on_shutdown)
        self._layer = Layer.read(config.options, "Telex(...)")
        self.dependencies: Final = self._layer.dependencies
        """The dependencies of the app's layer, including those of plugins."""
        self.users: Final = Users(self.connections, _hub_among(self.dependencies), self._layer.type_encoders)
        """The connections of each user, on all nodes if there are channels."""
        self.counts: Final = config.counts
        """What the app counts (:mod:`telex.telemetry`); ``None`` if no plugin asks for it."""
        self._errors = ExceptionPolicy(self._layer.exception_handlers, "Telex", debug=config.debug)
        self._check_origin = compile_origin_check(nearest(self._layer.allowed_origins, ()), "Telex")
        self._make_readable = compile_refusals(nearest(self._layer.denials, "auto"))
        self._cache = Cache()
        self._connect_limits = ConnectLimits()
        self._once_runs = OnceRuns()
        self._server: DrainingServer | None = None
        if self.counts is not None:
            self.counts.limits = self._connect_limits
        self._names = RouteNames()
        self._contract: str | None = None
        self._table: RouteTable[HandlerPlan] = RouteTable()
        self.plans: Final = self._compile(config.route_handlers)
        """The compiled handlers, one plan for each path, in the order of registration."""
        self._tickets = _tickets_of(self.plans)
        self.hubs: Final[Mapping[str, Channels]] = self._find_hubs()
        """The hubs of channels, by the names of their dependencies."""
        self._runs = False

    def _compile(self, route_handlers: Iterable[RouteHandler]) -> tuple[HandlerPlan, ...]:
        rows = tuple(flatten(route_handlers, self._layer, self))
        plans: dict[int, HandlerPlan] = {}
        for index in sorted(range(len(rows)), key=lambda index: rows[index].handler.opens_others):
            plans[index] = self._compile_row(rows[index], tuple(plans.values()))
        return tuple(plans[index] for index in range(len(rows)))

    def _compile_row(self, row: Row, compiled: Sequence[HandlerPlan]) -> HandlerPlan:
        template = _read_path(row)
        build = Build(
            handler=row.handler,
            layer=row.layer,
            path=row.path,
            path_names=template.names,
            registry=self.connections,
            cache=self._cache,
            connect_limits=self._connect_limits,
            once_runs=self._once_runs,
            counts=None if self.counts is None else self.counts.route(row.path),
            debug=self.debug,
            sources=row.sources,
            compiled=compiled,
            find_route=self._find_among,
            contract=self.contract,
        )
        plan = compile_plan(build)
        if build.counts is not None:
            build.counts.label(message_labels(shape.annotation for shape in plan.receives))
        self._table.add(template, plan, plan.where)
        self._names.add(row.handler, template)
        return plan

    # -- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, one request, or the app's lifespan."""
        kind = scope["type"]
        if kind == "websocket":
            await self._find(scope)(scope, receive, send)
        elif kind == "http":
            await self._serve_http(scope, receive, send)
        elif kind == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        else:
            raise ImproperlyConfiguredException(f"Telex serves http, websocket and lifespan, not {kind!r}")

    def _find(self, scope: Scope) -> ASGIApp:
        """Find the ASGI app that serves this connection; add its handler and path parameters to the scope."""
        if "app" in scope:
            without_fast_path(scope)
        found = self._table.find(own_path(scope))
        if found is not None and found[0].handler.opens_others:
            scope["telex.before_routing"] = before_routing(scope)
        return self._enter(found, scope)

    def _find_among(self, plans: Collection[int], scope: Scope) -> ASGIApp:
        """The same for a route on a shared socket, which may be one of ``plans``, given by their ids."""
        found = self._table.find(own_path(scope))
        return self._enter(found if found is not None and id(found[0]) in plans else None, scope)

    def _enter(self, found: tuple[HandlerPlan, dict[str, Any]] | None, scope: Scope) -> ASGIApp:
        scope["app"] = self
        if self._tickets:
            hide_tickets(scope, self._tickets if found is None else _tickets_of((found[0],)))
        if found is None:
            return self._refuse
        plan, path_params = found
        scope["path_params"] = {**scope.get("path_params", {}), **path_params}
        scope["route_handler"] = plan.handler
        return plan.app

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deny with 404, or close with 4404 if the server does not support denial responses."""
        socket: Socket = WebSocket(scope, receive, send)
        if self.counts is not None:
            socket.configure(ConnectionOptions(handshakes=self.counts.handshakes))
        if self._make_readable is not None and offers_frames(scope):
            with suppress(PermissionDeniedException):
                if self._check_origin is not None:
                    self._check_origin(socket)
                self._make_readable(socket)
        await self._errors.end(socket, NotFoundException())

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = self._http_routes.get(own_path(scope), self._http)
        if http is not None:
            await http(scope, receive, send)
            return
        if self._table.find(own_path(scope)) is None:
            response: Response = JSONResponse({"status_code": 404, "detail": "Not Found"}, 404)
        else:
            body = {"status_code": 426, "detail": "this path is a WebSocket"}
            response = JSONResponse(body, 426, headers={"upgrade": "websocket", "connection": "upgrade"})
        await response(scope, receive, send)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        state = scope.setdefault("state", {})
        state[READINESS], self._server = self.readiness, state.get("telex.server")
        started = False
        try:
            async with self.lifespan():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except BaseException as exc:
            failed = "shutdown" if started else "startup"
            await send({"type": f"lifespan.{failed}.failed", "message": f"{type(exc).__name__}: {exc}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """Start and stop the app: for servers and for frameworks that Telex is mounted in.

        Enters the lifespan managers in order, then runs ``on_startup``; at the end runs ``on_shutdown``, then exits the
        managers in reverse order. Clears the values of ``use_cache`` providers at the start.
        """
        self._cache.forget()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._connect_limits.aclose)
            stack.push_async_callback(self.users.aclose)
            stack.push_async_callback(self._once_runs.aclose)
            for manager in self._lifespans:
                # contextlib's managers are also callable, as decorators.
                entered = manager if isinstance(manager, AbstractAsyncContextManager) else manager(self)
                await stack.enter_async_context(entered)
            for hook in self._on_startup:
                await self._run_hook(hook)
            self._runs = True
            try:
                yield
            finally:
                self._runs = False
                await self._once_runs.drain()
                for hook in self._on_shutdown:
                    await self._run_hook(hook)

    async def _run_hook(self, hook: Hook) -> None:
        result = hook(self) if positional_count(hook) else hook()
        if isinstance(result, Awaitable):
            await result

    def readiness(self) -> dict[str, bool]:
        """Whether this process should get new clients: it should if all values are true. For readiness probes.

        ``accepting``: the lifespan runs. ``not_draining``: neither Telex's server nor ``app.connections.drain()``
        closes connections. And the name of each dependency that is a hub of channels: whether it receives events and
        can publish.
        """
        hubs = {name: hub.is_ready for name, hub in self.hubs.items()}
        return {"accepting": self._runs, "not_draining": not self.is_draining, **hubs}

    @property
    def is_draining(self) -> bool:
        """Whether Telex's server or ``app.connections.drain()`` closes the connections."""
        return self.connections.is_draining or (self._server is not None and self._server.draining.is_set())

    def _find_hubs(self) -> dict[str, Channels]:
        layers = (self.dependencies, *(plan.layer.dependencies for plan in self.plans))
        return {
            name: provider.hub
            for dependencies in layers
            for name, provider in dependencies.items()
            if isinstance(provider, ChannelsProvider)
        }

    # -- the contract

    def asyncapi(self, version: AsyncAPIVersion = "3.1.0") -> dict[str, Any]:
        """The AsyncAPI document of the app's routes, messages and limits: the same for the same code.

        :param version: the version of AsyncAPI, ``3.1.0`` or ``3.0.0``.
        """
        info = DocumentInfo() if self._asyncapi is None else self._asyncapi.info
        return make_document(self.plans, info, version)

    def contract(self) -> str:
        """The hash of what matters to clients in the document, as clients of telex.v1 get it in ``hello``.

        It is computed at the first call. It is empty if the document cannot be written, which is logged.
        """
        if self._contract is None:
            try:
                self._contract = str(self.asyncapi()["x-telex-contract"])
            except Exception:
                _logger.exception("the AsyncAPI document cannot be written: clients get no hash of the contract")
                self._contract = ""
        return self._contract

    # -- URLs

    def route_reverse(self, target: object, **path_parameters: Any) -> str:
        """The path of a handler with these path parameters; ``target`` is the handler or its name.

        :raises NoRouteMatchFoundException: there is no such handler, or it takes other parameters.
        """
        return self._names.reverse(target, path_parameters)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """The same as ``route_reverse``, with starlette's interface, so that starlette apps can build URLs."""
        return URLPath(self.route_reverse(name, **path_params), protocol="websocket")


def _hub_among(dependencies: Mapping[str, object]) -> Channels | None:
    providers = (provider for provider in dependencies.values() if isinstance(provider, ChannelsProvider))
    return next((provider.hub for provider in providers), None)


def _tickets_of(plans: Iterable[HandlerPlan]) -> frozenset[str]:
    """The query parameters that carry tokens."""
    options = (nearest(plan.layer.authenticate, None) for plan in plans)
    return frozenset(option.query for option in options if option is not None and option.query is not None)


def _read_path(row: Row) -> PathTemplate:
    try:
        return PathTemplate.parse(row.path)
    except ImproperlyConfiguredException as exc:
        raise ImproperlyConfiguredException(f"{row.handler.where}: {exc.detail}") from exc
