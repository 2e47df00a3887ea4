"""Compiles a handler when the app is built: into one closure, and a record that describes it.

All kinds of handler share the session that is compiled here::

    Origin check -> middleware -> guards -> parameters and dependencies -> run -> cleanup -> close

Each kind of handler adds ``run``, which accepts and serves the open connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeAlias

from telex import codecs
from telex.auth.connection import Authenticator, Recheck
from telex.auth.provider import compile_identify, for_one_run
from telex.auth.tokens import compile_finder
from telex.calls import Cache
from telex.clock import loop_time
from telex.codecs import Reader, Writer
from telex.connection import ConnectionOptions, Socket, WebSocket
from telex.defaults import MAX_MESSAGE_SIZE, MAX_QUEUED_MESSAGES
from telex.di import Built, Graph, Providers
from telex.dto.base import AbstractDTO
from telex.dto.compiler import dto_reader, dto_writer
from telex.dto.data import holds_data
from telex.ends import OnEnd, Run, end_cancelled, with_its_end
from telex.event_reader import as_unexpected
from telex.exception_handling import ExceptionPolicy, leaf
from telex.exceptions import ImproperlyConfiguredException, PermissionDeniedException
from telex.layers import Layer, nearest
from telex.limits.handshakes import ConnectLimits, HandshakeChecks
from telex.limits.messages import MessageLimits
from telex.middleware import without_fast_path, wrap_in_middleware
from telex.once.runs import OnceRuns
from telex.origins import compile_origin_check
from telex.params import RequestParameter
from telex.protocol.envelope import Envelope
from telex.protocol.failures import Failures
from telex.protocol.refusals import compile_refusals
from telex.registry import Registry
from telex.reserved import RESERVED
from telex.signatures import describe, parameter_names
from telex.slow_callbacks import report_blocking
from telex.streams import Streams
from telex.telemetry.counts import Handshakes, RouteCounts
from telex.types import ASGIApp, Mode, Receive, Scope, Send

__all__ = ("Build", "ChannelShape", "HandlerPlan", "MessageShape", "Operation", "Run", "compile_plan")

logger: Final = logging.getLogger("telex")

BEGAN: Final = "telex.began"
"""The key in the scope for when a handshake reached the app's own middleware."""


Guarding: TypeAlias = Callable[[Socket, list[Any]], Awaitable[None]]
"""Raises to refuse a connection; takes the socket and the slots with the guards' dependencies."""


FindRoute: TypeAlias = Callable[[Collection[int], Scope], ASGIApp]
"""Finds the ASGI app of a scope's path among the plans with these ids, and completes the scope."""

Admission: TypeAlias = Callable[[Socket], None]
"""What the outermost connection of a handshake goes through before any code of the app."""


@dataclass(frozen=True, slots=True)
class MessageShape:
    """One type of message of a handler, for API documents: its annotation, its mode and its data transfer object."""

    annotation: Any
    mode: Mode
    dto: type[AbstractDTO[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What one function of a handler takes, and what it answers, for API documents."""

    takes: MessageShape
    answers: MessageShape | None = None
    parts: bool = False
    """Whether the answer comes in parts of the type ``answers``."""
    idempotent: bool = False
    """Whether calls may carry a key."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class ChannelShape:
    """The channel whose events a handler sends, for API documents."""

    name: str
    """The name with path parameters in braces; empty if a function returns it."""
    keeps: bool
    """Whether the channel may have history."""
    has_presence: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerPlan:
    """A handler compiled for one path. ``app`` serves a connection; the other fields describe the handler."""

    path: str
    name: str | None
    kind: str
    handler: Compilable
    layer: Layer
    app: ASGIApp
    where: str
    operations: tuple[Operation, ...]
    pushes: tuple[MessageShape, ...]
    """What the handler sends besides answers."""
    parameters: tuple[RequestParameter, ...]
    asks: tuple[Operation, ...] = ()
    """What the handler asks clients; ``takes`` is what clients get."""
    channel: ChannelShape | None = None
    speaks_frames: bool = False
    """Whether clients that offer telex.v1 are served in frames."""
    sources: tuple[object, ...] = ()
    """What the handler was registered with, from outside to inside: routers, controllers, and its identity."""
    opens: tuple[str, ...] = ()
    """The paths of the routes that a Multiplex opens."""

    @property
    def receives(self) -> tuple[MessageShape, ...]:
        """The messages that clients may send."""
        return tuple(each.takes for each in self.operations)

    @property
    def sends(self) -> tuple[MessageShape, ...]:
        """The messages that clients get: answers, and what is sent besides."""
        return (*(each.answers for each in self.operations if each.answers is not None), *self.pushes)


class Compilable(Protocol):
    """The part of a handler's description that compilation uses: :class:`telex.handlers.base.Handler`."""

    @property
    def kind(self) -> str:
        """The kind of handler, such as ``listener``."""

    @property
    def where(self) -> str:
        """The handler's function, file and line, for errors and tables."""

    @property
    def name(self) -> str | None:
        """The handler's name for ``route_reverse``."""

    @property
    def layer(self) -> Layer:
        """The options that are given on the handler itself."""

    @property
    def opens_others(self) -> bool:
        """Whether the handler opens other routes of the app: it is compiled after them."""

    @property
    def send_mode(self) -> Mode:
        """The mode in which the handler sends."""

    def compile_run(self, build: Build) -> Run:
        """Compile the function that serves a connection."""


@dataclass(slots=True, kw_only=True)
class Build:
    """The input for compiling one handler for one path, and the data that its kind adds during compilation."""

    handler: Compilable
    layer: Layer
    path: str
    path_names: frozenset[str]
    registry: Registry
    cache: Cache
    connect_limits: ConnectLimits
    once_runs: OnceRuns
    counts: RouteCounts | None = None
    debug: bool = False
    sources: tuple[object, ...] = ()
    """See :class:`HandlerPlan`."""
    compiled: Sequence[HandlerPlan] = ()
    """The other plans of the app, for a handler that opens them."""
    find_route: FindRoute | None = None
    contract: Callable[[], str] = str
    """Returns the hash of the app's contract; empty where there is no app."""
    opens: tuple[str, ...] = ()
    graph: Graph = field(init=False)
    where: str = field(init=False)
    operations: tuple[Operation, ...] = ()
    """This and the next three: see :class:`HandlerPlan`."""
    pushes: tuple[MessageShape, ...] = ()
    asks: tuple[Operation, ...] = ()
    channel: ChannelShape | None = None
    uses_streams: bool = False
    """Whether the handler starts streams, even if no function takes the socket."""
    open_envelope: Callable[[Socket], Envelope] | None = None
    """Makes the frames of connections that speak telex.v1, if the handler does."""
    may_rest: bool = False
    """Whether nothing of the handler is open between two messages, so that an idle route needs no task."""
    prefers_envelope: bool = False
    """Whether the handler speaks telex.v1 where it is offered, also if it names other subprotocols."""
    before_accept: Callable[[Socket], None] | None = None
    """What the handler does with a connection before it accepts it; also before it is accepted for a first token."""
    on_end: OnEnd | None = None
    """The function to call at the end of an accepted connection."""

    def __post_init__(self) -> None:
        self.where = self.handler.where
        self.graph = self.new_graph(self.layer.dependencies)

    def new_graph(self, providers: Providers) -> Graph:
        """A graph without functions: their parameters are these dependencies, and values of the handshake."""
        return Graph(
            self.where,
            path_names=self.path_names,
            providers=providers,
            parameters=self.layer.parameters,
            decoders=self.layer.type_decoders,
            namespace=self.layer.signature_namespace,
            cache=self.cache,
            debug=self.debug,
        )

    @property
    def websocket_class(self) -> type[Socket]:
        """The class of ``socket``."""
        default: type[Socket] = WebSocket
        return nearest(self.layer.websocket_class, default)

    @property
    def handshakes(self) -> Handshakes | None:
        """What the app counts of handshakes."""
        return None if self.counts is None else self.counts.app.handshakes

    @property
    def max_message_size(self) -> int:
        """The limit of one message, in bytes."""
        return nearest(self.layer.max_message_size, MAX_MESSAGE_SIZE)

    def exception_policy(self, mode: Mode = "text") -> ExceptionPolicy:
        """The compiled exception handlers, whose replies are sent in ``mode``."""
        return ExceptionPolicy(
            self.layer.exception_handlers,
            self.where,
            debug=self.debug,
            mode=mode,
            encoders=self.layer.type_encoders,
        )

    def reader(self, annotation: Any, mode: Mode) -> Reader:
        """The function that reads messages of ``annotation``, through the layer's data transfer object if any."""
        dto = nearest(self.layer.dto, None)
        if dto is not None:
            return dto_reader(dto, annotation, mode, self.layer.type_decoders, self.where)
        if holds_data(annotation):
            raise self.wrong("'data' is DTOData, which needs a dto: add dto=..., or annotate 'data' with the model")
        try:
            return codecs.reader(annotation, mode, self.layer.type_decoders)
        except ImproperlyConfiguredException as exc:
            raise self.wrong(f"'data': {exc.detail}") from exc

    def writer(self, annotation: Any, mode: Mode, *, by_value: bool = False) -> Writer:
        """The function that writes replies of ``annotation``; with ``by_value``, text and bytes are never encoded."""
        dto = self._return_dto(annotation)
        if dto is not None:
            write = dto_writer(dto, annotation, mode, self.layer.type_encoders, self.where)
            return codecs.but_raw(write, mode) if by_value else write
        compile_writer = codecs.value_writer if by_value else codecs.writer
        try:
            return compile_writer(annotation, mode, self.layer.type_encoders)
        except ImproperlyConfiguredException as exc:
            raise self.wrong(f"the reply: {exc.detail}") from exc

    def frame_reader(self, annotation: Any) -> tuple[Reader | None, Reader | None]:
        """The functions that read the data of telex.v1 frames as ``annotation``: JSON, and bytes."""
        dto = nearest(self.layer.dto, None)
        if dto is not None:
            return dto_reader(dto, annotation, "text", self.layer.type_decoders, self.where), None
        return codecs.frame_reader(annotation, self.layer.type_decoders)

    def frame_writer(self, annotation: Any) -> Writer:
        """The function that writes replies of ``annotation`` as the data of telex.v1 frames."""
        dto = self._return_dto(annotation)
        if dto is not None:
            return dto_writer(dto, annotation, "text", self.layer.type_encoders, self.where)
        return codecs.frame_writer(annotation, self.layer.type_encoders)

    def received(self, annotation: Any, mode: Mode) -> MessageShape:
        """The description of messages that :meth:`reader` reads."""
        return MessageShape(annotation, mode, nearest(self.layer.dto, None))

    def sent(self, annotation: Any, mode: Mode) -> MessageShape:
        """The description of messages that :meth:`writer` writes."""
        return MessageShape(annotation, mode, self._return_dto(annotation))

    def _return_dto(self, annotation: Any) -> type[AbstractDTO[Any]] | None:
        """``return_dto``; if none is given, ``dto`` if it is for the annotation's model."""
        dto = nearest(self.layer.dto, None)
        fallback = dto if dto is not None and dto.fits(annotation) else None
        return nearest(self.layer.return_dto, fallback)

    def wrong(self, problem: str) -> ImproperlyConfiguredException:
        """An error about this handler: its function, file and line, then ``problem``."""
        return ImproperlyConfiguredException(f"{self.where}: {problem}")


def compile_plan(build: Build) -> HandlerPlan:
    """Compile the handler of ``build``.

    :raises ImproperlyConfiguredException: every configuration error that is detectable before the first connection.
    """
    guards, guarded = _compile_guards(build), build.graph.built
    run = build.handler.compile_run(build)
    policy = build.exception_policy(build.handler.send_mode)
    checks = _handshake_checks(build)
    serve = _compile_serve(build, run, policy, checks, guards, guarded)
    admit = _compile_admission(build, checks.first)
    session = _compile_session(build, serve, policy, None if build.layer.middleware else admit)
    app = _behind_middleware(build, session, policy, admit) if build.layer.middleware else session
    return HandlerPlan(
        path=build.path,
        name=build.handler.name,
        kind=build.handler.kind,
        handler=build.handler,
        layer=build.layer,
        app=app,
        where=build.where,
        operations=build.operations,
        pushes=build.pushes,
        asks=build.asks,
        channel=build.channel,
        speaks_frames=build.open_envelope is not None,
        parameters=build.graph.request_parameters,
        sources=build.sources,
        opens=build.opens,
    )


def _handshake_checks(build: Build) -> HandshakeChecks:
    layer = build.layer
    return build.connect_limits.compile(layer.connect_limit, nearest(layer.max_connections_per, True), build.where)


def _compile_admission(build: Build, limits: Sequence[Admission]) -> Admission | None:
    """The Origin check; then the denials that follow are made readable, as ``denials`` says; then the limits."""
    check_origin = compile_origin_check(nearest(build.layer.allowed_origins, ()), build.where)
    make_readable = compile_refusals(nearest(build.layer.denials, "auto"))
    checks: tuple[Admission, ...] = tuple(each for each in (check_origin, make_readable) if each is not None)
    checks = (*checks, *limits)
    if len(checks) < 2:
        return checks[0] if checks else None

    def admit(socket: Socket) -> None:
        for check in checks:
            check(socket)

    return admit


def _compile_session(
    build: Build, serve: Callable[[Socket], Awaitable[None]], policy: ExceptionPolicy, admit: Admission | None
) -> ASGIApp:
    """The ASGI app that serves one connection from its handshake to its end."""
    websocket_class, options = build.websocket_class, _connection_options(build)
    discard = build.registry.discard
    options = replace(
        options,
        open_envelope=build.open_envelope,
        prefers_envelope=build.prefers_envelope,
        counts=build.counts,
        handshakes=None if build.layer.middleware else build.handshakes,
        may_rest=build.may_rest,
        limit_messages=_message_limits(build),
    )

    def session(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        socket = websocket_class(scope, receive, send)
        socket.configure(options)
        began = scope.pop(BEGAN, None)
        if "user" in scope:
            socket.began = began or loop_time()
        return attend(socket)

    async def attend(socket: Socket) -> None:
        """Serve a connection from its handshake, or from its last rest."""
        socket.own(asyncio.current_task())
        rests = False
        try:
            if admit is not None and not socket.was_accepted:
                admit(socket)
            await serve(socket)
            rests = socket.rest(attend)
            if not rests:
                await _finish(socket)
        except Exception as exc:
            await policy.end(socket, exc)
        except asyncio.CancelledError as exc:
            await end_cancelled(socket, exc, policy)
        finally:
            if not rests:
                discard(socket)
                await _end(socket, build)

    return session


async def _end(socket: Socket, build: Build) -> None:
    """After a connection, or its handshake: stop what belongs to it."""
    socket.gone()
    _log_unhandled(socket, build)
    if socket.authentication is not None:
        await socket.authentication.aclose()
        socket.authentication = None  # it references the connection: a reference cycle
    if socket.envelope is not None:
        await socket.envelope.aclose()
    await socket.event_reader.aclose()


def _log_unhandled(socket: Socket, build: Build) -> None:
    """Log how many messages of the client were received but not handled, once for each connection.

    The level is ``INFO`` if this side closed the connection: then the app itself has decided against its messages.
    """
    reader, transport, client = socket.event_reader, socket.transport, socket.client
    unhandled = reader.unread + (transport.unread if transport is not None else 0)
    if unhandled:
        logger.log(
            logging.INFO if reader.closing else logging.WARNING,
            "%s: the connection of %s to %s ended with %s, and %d of its messages were not handled",
            build.where,
            "an unknown client" if client is None else f"{client.host}:{client.port}",
            build.path,
            socket.close_code,
            unhandled,
        )


async def _finish(socket: Socket) -> None:
    """After the handler has returned: close an open connection with 1000, or refuse a pending handshake."""
    if socket.is_open:
        await socket.close()
    elif socket.connection_state in {"init", "connect"}:
        await socket.deny(403, {"status_code": 403, "detail": "the handler did not accept the connection"})


def _compile_serve(
    build: Build,
    run: Run,
    policy: ExceptionPolicy,
    checks: HandshakeChecks,
    guards: Sequence[Guarding],
    guarded: Built,
) -> Callable[[Socket], Awaitable[None]]:
    """``run`` after guards and dependencies, in a task group for streams if a function can start streams.

    Only the values that guards take are resolved before the guards run, so that refusing a client is cheap.
    """
    graph, registry = build.graph, build.registry
    announce: Callable[[Socket], None] = registry.add_shared if build.handler.opens_others else registry.add
    resolve_for_guards, resolve = graph.connection_resolver(until=guarded), graph.connection_resolver(guarded)
    size = graph.size

    async def run_guards(socket: Socket, exits: AsyncExitStack, slots: list[Any]) -> None:
        await resolve_for_guards(socket, exits, slots)
        for guard in guards:
            await guard(socket, slots)

    async def recheck(socket: Socket) -> None:
        async with AsyncExitStack() as exits:
            await run_guards(socket, exits, [None] * size)

    authenticator = _compile_authenticator(build, policy, recheck)
    if authenticator is not None:
        announce = _announced_with_identity(announce)
    body = _with_streams(run) if build.uses_streams or graph.takes_socket else run
    if build.on_end is not None:
        body = with_its_end(body, policy, build.on_end)
    nothing: list[Any] = [None]

    def serve_plainly(socket: Socket) -> Awaitable[None]:
        socket.admit(announce)
        return body(socket, nothing)

    async def serve(socket: Socket) -> None:
        async with AsyncExitStack() as exits:
            slots = [None] * size
            for check in checks.before_guards:
                await check(socket)
            if authenticator is not None:
                await authenticator.authenticate(socket)
            await run_guards(socket, exits, slots)
            for check in checks.after_guards:
                await check(socket)
            await resolve(socket, exits, slots)
            socket.admit(announce)
            await body(socket, slots)

    checked = authenticator or guards or checks.before_guards or checks.after_guards
    serve_anew = serve if checked or graph.needs_resolving else serve_plainly
    build.may_rest &= body is run and not (graph.has_cleanup or build.layer.middleware)
    if not build.may_rest:
        return serve_anew
    # After a rest the handler has its values, and nothing is closed at the end.
    return lambda socket: body(socket, nothing) if socket.was_accepted else serve_anew(socket)


def _announced_with_identity(announce: Callable[[Socket], None]) -> Callable[[Socket], None]:
    def announce_and_begin(socket: Socket) -> None:
        announce(socket)
        if socket.authentication is not None:
            socket.authentication.begin()

    return announce_and_begin


def _compile_authenticator(build: Build, policy: ExceptionPolicy, recheck: Recheck) -> Authenticator | None:
    option = nearest(build.layer.authenticate, None)
    if option is None:
        return None
    if option.in_band and build.open_envelope is None:
        raise build.wrong(
            "authenticate= with in_band=True takes tokens in frames, and this handler speaks none:"
            " write protocol='telex.v1', or authenticate=Authenticate(..., bearer=True)"
        )
    graph = build.new_graph(for_one_run(build.layer.dependencies))
    return Authenticator(
        find=compile_finder(option),
        identify=compile_identify(option, graph),
        recheck=recheck,
        errors=policy,
        failures=Failures((), build.where, debug=build.debug),
        in_band=option.in_band,
        before_accept=build.before_accept,
        timeout=option.timeout,
    )


def _with_streams(run: Run) -> Run:
    """Wrap ``run`` in a task group that owns the connection's streams and cancels them at the end."""

    async def run_with_streams(socket: Socket, slots: list[Any]) -> None:
        failures: list[BaseException] = []
        try:
            async with Streams(socket.event_reader.interrupt) as streams:
                socket.streams = streams
                socket.own_tasks()
                try:
                    await run(socket, slots)
                except Exception as exc:
                    # The task group would wrap the exception, which would keep the connection in a reference cycle.
                    failures.append(exc)
                finally:
                    socket.streams = None
                    streams.cancel()
        except BaseExceptionGroup as group:
            failures.append(group)
        except asyncio.CancelledError:
            failures += streams.take_failures()
            if not failures:  # a failure counts more than a cancellation, as in a plain task group
                raise
        failures += streams.take_failures()
        if failures:
            try:
                raise leaf(BaseExceptionGroup("", failures))
            finally:
                failures.clear()

    return run_with_streams


def _connection_options(build: Build) -> ConnectionOptions:
    return ConnectionOptions(
        max_message_size=build.max_message_size,
        max_queued_messages=nearest(build.layer.max_queued_messages, MAX_QUEUED_MESSAGES),
        type_encoders=build.layer.type_encoders,
        type_decoders=build.layer.type_decoders,
        notices=nearest(build.layer.notices, True),
    )


def _message_limits(build: Build) -> Callable[[Socket], None] | None:
    """The function that limits a connection's messages. A shared socket has only its own: routes have theirs."""
    layer = build.handler.layer if build.handler.opens_others else build.layer
    messages, size = nearest(layer.message_limit, None), nearest(layer.byte_limit, None)
    if messages is None and size is None:
        return None
    limits = MessageLimits(
        where=build.where, messages=messages, size=size, mode=build.handler.send_mode, counts=build.counts
    )
    return limits.apply


def _compile_guards(build: Build) -> Sequence[Guarding]:
    return tuple(_compile_guard(guard, build) for guard in build.layer.guards)


def _compile_guard(guard: Callable[..., Any], build: Build) -> Guarding:
    """Compile a guard: it takes the socket, optionally the handler, and dependencies and parameters by name."""
    if not callable(guard):
        raise build.wrong(f"guard {guard!r} is not callable: write def guard(socket, handler)")
    positional, by_keyword = parameter_names(guard)
    if not positional:
        raise build.wrong(f"guard {describe(guard)} takes no socket: write def guard(socket, handler)")
    injected = {*build.layer.dependencies, *build.path_names, *RESERVED}
    given = positional[: 2 if len(positional) > 1 and positional[1] not in injected else 1]
    call = build.graph.call(guard, skip=given) if positional[len(given) :] or by_keyword else None
    arguments = (build.handler,)[: len(given) - 1]
    if build.debug:
        guard = report_blocking(guard, describe(guard))

    async def check(socket: Socket, slots: list[Any]) -> None:
        verdict = (guard if call is None else call.bind(slots))(socket, *arguments)
        if isinstance(verdict, Awaitable):
            verdict = await verdict
        if verdict is False:
            raise PermissionDeniedException

    return check


def _behind_middleware(build: Build, session: ASGIApp, policy: ExceptionPolicy, admit: Admission | None) -> ASGIApp:
    """Wrap ``session`` in the layers' middleware; exceptions of the middleware also end the connection."""
    wrapped = wrap_in_middleware(session, build.layer.middleware, build.where)
    options = replace(_connection_options(build), handshakes=build.handshakes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        outer: Socket = WebSocket(scope, receive, send)
        outer.configure(options)
        without_fast_path(scope)
        scope[BEGAN] = loop_time()
        try:
            if admit is not None:
                admit(outer)
            await wrapped(scope, outer.receive, outer.send)
        except Exception as exc:
            await policy.end(outer, exc)
        except asyncio.CancelledError as exc:
            await policy.end(outer, as_unexpected(exc))
        finally:
            outer.gone()
            await outer.event_reader.aclose()

    return app
