"""``websocket_listener`` and ``WebsocketListener``: handlers with a callback for each message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, ClassVar, TypeAlias, Unpack, cast

from telex.calls import Call
from telex.connection import Socket
from telex.defaults import MAX_INVALID_MESSAGES
from telex.ends import OnEnd
from telex.event_reader import supervised
from telex.handlers.base import (
    ContractOptions,
    FrameProtocol,
    Handler,
    Paths,
    check_count,
    check_function,
    check_mode,
    check_protocol,
    own_options,
    read_paths,
)
from telex.handlers.frame_calls import speak_calls
from telex.handlers.message_loop import MessageLoop, Serve, overrides_messages
from telex.handlers.receivers import Receivers, compile_receivers, declared_receivers
from telex.layers import nearest
from telex.once.calls import OnceCalls
from telex.once.keys import contract_of
from telex.once.options import Once, read_once
from telex.plans import Build, Run
from telex.protocol.calls import CallSession
from telex.signatures import AnyCallable, class_attribute, describe, is_undecorated, positional_count
from telex.types import Mode

__all__ = ("ListenerHandler", "ListenerOptions", "WebsocketListener", "websocket_listener")

AcceptHandler: TypeAlias = Callable[[Any], Awaitable[None] | None]
ConnectionLifespan: TypeAlias = Callable[..., AbstractAsyncContextManager[Any]]


class ListenerOptions(ContractOptions, total=False):
    """Options of ``websocket_listener`` besides ``path`` and ``name``, and attributes of ``WebsocketListener``."""

    receive_mode: Mode
    """The mode of the messages to receive. Messages of the other mode are ignored, logged once and counted."""
    send_mode: Mode
    """The mode in which replies are sent."""
    connection_accept_handler: AcceptHandler | None
    """Called with the socket instead of ``socket.accept()``."""
    connection_lifespan: ConnectionLifespan | None
    """An async context manager around the connection, instead of the accept handler and the two hooks."""
    on_accept: AnyCallable | None
    """Runs after accept; dependencies and parameters are injected as in the listener."""
    on_disconnect: AnyCallable | None
    """Runs exactly once after an accepted connection has ended; can take ``close_code`` and ``close_reason``."""
    max_concurrency: int
    """The number of messages of one connection that are handled at once (default 1); replies are sent in the order of
    completion."""
    max_invalid_messages: int
    """The number of consecutive invalid messages that closes the connection with 1007 (default 10)."""
    idempotent: Once | bool
    """Calls of telex.v1 may have a ``key``: a second call with the same key gets the answer of the first. ``True``
    remembers them in this process, ``Once(store="redis://…")`` for all processes."""
    protocol: FrameProtocol | None
    """``telex.v1``: speak it with clients that offer it, also if the handler names other subprotocols in ``accept``."""
    sync_to_thread: bool
    """Run sync callbacks and hooks in a thread. By default they run inline, which is faster; they must then not
    block."""


@dataclass(frozen=True, kw_only=True)
class ListenerHandler(Handler):
    """The description of a listener; ``receivers`` are its callbacks."""

    kind: ClassVar[str] = "listener"

    receivers: tuple[AnyCallable, ...]
    receive_mode: Mode = "text"
    connection_accept_handler: AcceptHandler | None = None
    connection_lifespan: ConnectionLifespan | None = None
    on_accept: AnyCallable | None = None
    on_disconnect: AnyCallable | None = None
    max_concurrency: int = 1
    max_invalid_messages: int = MAX_INVALID_MESSAGES
    idempotent: Once | None = None
    protocol: FrameProtocol | None = None
    sync_to_thread: bool = False

    def bound_to(self, owner: object) -> ListenerHandler:
        """This listener with its callback as a method of ``owner``."""
        fn = self.fn.__get__(owner)
        return replace(self, fn=fn, receivers=(fn,))

    def compile_run(self, build: Build) -> Run:
        """Accept, run the hooks, and exchange messages until the client leaves."""
        self._check(build)
        receivers = compile_receivers(
            build,
            self.receivers,
            self.receive_mode,
            self.send_mode,
            self.sync_to_thread,
            outlives=self.idempotent is not None,
        )
        takes_keys = self.idempotent is not None
        build.operations = tuple(replace(each, idempotent=takes_keys) for each in receivers.operations)
        self.describe_sent(build)
        serve = MessageLoop.compile(
            build,
            receive_mode=self.receive_mode,
            send_mode=self.send_mode,
            decode=receivers.decode,
            encode=receivers.encode,
            bind=receivers.bind,
            awaits=receivers.awaits,
            max_invalid_messages=self.max_invalid_messages,
            max_concurrency=self.max_concurrency,
        )
        if not overrides_messages(build.websocket_class):
            speak_calls(
                build,
                build.frame_reader(reduce(or_, receivers.receives)),
                receivers.bind_calls,
                max_concurrency=self.max_concurrency,
                max_invalid_messages=self.max_invalid_messages,
                once=self._compile_once(build, receivers),
            )
            build.prefers_envelope = self.protocol is not None
            build.may_rest = self.on_accept is None and self.connection_lifespan is None and self.max_concurrency == 1
            serve = _by_protocol(serve)
        if self.connection_lifespan is not None:
            return _run_in_lifespan(build, self.connection_lifespan, serve)
        return self._run_with_hooks(build, serve)

    def _compile_once(self, build: Build, receivers: Receivers) -> OnceCalls | None:
        if self.idempotent is None:
            return None
        answers = [each.answers.annotation for each in receivers.operations if each.answers is not None]
        contract = contract_of(receivers.receives, answers)
        return OnceCalls(self.idempotent, build.once_runs, where=build.where, path=build.path, contract=contract)

    def _check(self, build: Build) -> None:
        if self.idempotent is not None and overrides_messages(build.websocket_class):
            raise build.wrong(
                f"idempotent= needs calls of telex.v1, which {build.websocket_class.__name__} does not have because it"
                " overrides how messages are received or sent"
            )
        hooks = (self.connection_accept_handler, self.on_accept, self.on_disconnect)
        if self.connection_lifespan is not None:
            if any(hook is not None for hook in hooks):
                raise build.wrong(
                    "connection_lifespan replaces connection_accept_handler, on_accept and on_disconnect:"
                    " give either the lifespan or the hooks"
                )
            if is_undecorated(self.connection_lifespan):
                raise build.wrong(
                    f"connection_lifespan {describe(self.connection_lifespan)} returns no context manager:"
                    " decorate it with contextlib.asynccontextmanager"
                )
        accept = self.connection_accept_handler
        option = nearest(build.layer.authenticate, None)
        if accept is not None and option is not None and option.in_band:
            raise build.wrong(
                "connection_accept_handler has no effect with in_band=True, which accepts before: remove one of them"
            )
        if accept is not None and positional_count(accept) != 1:
            raise build.wrong(f"connection_accept_handler {describe(accept)} takes the socket and nothing else")

    def _run_with_hooks(self, build: Build, serve: Serve) -> Run:
        in_thread = self.sync_to_thread
        on_accept = build.graph.call(self.on_accept, in_thread=in_thread) if self.on_accept else None
        on_disconnect = (
            build.graph.call(self.on_disconnect, skip=_DISCONNECT_NAMES, in_thread=in_thread)
            if self.on_disconnect
            else None
        )
        if on_disconnect is not None:
            build.on_end = _compile_on_end(on_disconnect)
        errors, accept = build.exception_policy(), self.connection_accept_handler

        async def run(socket: Socket, slots: list[Any]) -> None:
            try:
                await _accept(socket, accept)
                if not socket.is_open:
                    return
                if on_accept is not None:
                    await supervised(on_accept(slots), socket.event_reader)
                await serve(socket, slots)
            except Exception as exc:
                if not errors.is_disconnect(socket, exc):
                    raise

        return run


def _compile_on_end(on_disconnect: Call) -> OnEnd:
    """Wrap ``on_disconnect``: pass the close code and reason if it has parameters for them."""
    wanted = [name for name in _DISCONNECT_NAMES if name in on_disconnect.signature]

    async def call_on_disconnect(socket: Socket, slots: list[Any]) -> None:
        given = {"close_code": socket.close_code, "close_reason": socket.close_reason}
        await on_disconnect(slots, **{name: given[name] for name in wanted})

    return call_on_disconnect


_DISCONNECT_NAMES = ("close_code", "close_reason")


def websocket_listener(
    path: Paths = None, *, name: str | None = None, **options: Unpack[ListenerOptions]
) -> Callable[[AnyCallable], ListenerHandler]:
    """Create a listener from a sync or async function that takes each message as ``data`` and returns the reply.

    The annotation of ``data`` is the type of the messages: ``str`` and ``bytes`` are passed unchanged, other types are
    decoded from JSON and validated. The return annotation is the type of the replies; ``None`` sends no reply.

    :param path: one path or several; default ``/``.
    :param name: the handler's name for ``route_reverse`` and ``url_for``.
    :param options: the options of :class:`ListenerOptions`, which include all layered options.
    """

    def decorate(fn: AnyCallable) -> ListenerHandler:
        check_function(fn, "websocket_listener")
        return _describe_listener(fn, (fn,), path, name, options)

    return decorate


class WebsocketListener:
    """A listener as a class: subclass it, and register the class.

    Options are class attributes with the names of :class:`ListenerOptions`. Messages go to ``on_receive``, to methods
    marked with ``@receives``, and to methods named after the tag of the type of their ``data`` (``on_move`` or ``move``
    for ``tag="move"``). ``on_accept`` and ``on_disconnect`` are hooks.

    **One instance serves all connections** of a registration, so store shared data, such as a set of sockets, on
    ``self``. For the data of *one* connection, use a dependency, which is created once per connection::

        class Chat(WebsocketListener):
            path = "/chat"
            dependencies = {"member": Provide(Member)}

            async def on_receive(self, data: Say, member: Member) -> Said: ...

    or an attribute of ``socket.state``, typed with ``WebSocket[User, Auth, MyState]``.
    """

    path: ClassVar[Paths] = None
    name: ClassVar[str | None] = None

    def __init__(self, owner: object) -> None:
        self.owner: object = owner

    @classmethod
    def describe(cls, owner: object) -> ListenerHandler:
        """Create an instance and return its description; ``owner`` is the app or router that it is registered with."""
        listener = cls(owner) if positional_count(cls) else cast("Any", cls)()
        receivers = declared_receivers(listener, getattr(cls, "signature_namespace", None))
        given = {name: class_attribute(listener, name) for name in _OPTION_NAMES if hasattr(listener, name)}
        described = _describe_listener(receivers[0], receivers, cls.path, cls.name, cast("ListenerOptions", given))
        return replace(described, identity=cls)


def _describe_listener(
    fn: AnyCallable, receivers: tuple[AnyCallable, ...], path: Paths, name: str | None, options: ListenerOptions
) -> ListenerHandler:
    where = describe(fn)
    own, layer = own_options(options, ListenerOptions, where)
    for mode in ("receive_mode", "send_mode"):
        check_mode(own.get(mode, "text"), mode, where)
    check_protocol(own.get("protocol"), where)
    own["idempotent"] = read_once(own.get("idempotent", False), where)
    for limit in ("max_concurrency", "max_invalid_messages"):
        check_count(own.get(limit, 1), limit, where)
    return ListenerHandler(fn=fn, receivers=receivers, paths=read_paths(path), name=name, layer=layer, **own)


async def _accept(socket: Socket, accept_handler: AcceptHandler | None) -> None:
    """Call the user's accept handler, if any. Accept the connection unless the handler accepted, closed or denied."""
    if accept_handler is not None:
        result = accept_handler(socket)
        if isinstance(result, Awaitable):
            await result
    if socket.connection_state in {"init", "connect"}:
        await socket.ensure_accepted()


def _run_in_lifespan(build: Build, lifespan: ConnectionLifespan, serve: Serve) -> Run:
    call = build.graph.call(lifespan)

    async def run(socket: Socket, slots: list[Any]) -> None:
        async with call.bind(slots)():
            if socket.connection_state in {"init", "connect"}:
                await socket.ensure_accepted()
            await serve(socket, slots)

    return run


def _by_protocol(serve_plainly: Serve) -> Serve:
    """Choose, once for each connection, between plain messages and the frames of telex.v1."""

    def serve(socket: Socket, slots: list[Any]) -> Coroutine[Any, Any, None]:
        if not isinstance(socket.envelope, CallSession):
            return serve_plainly(socket, slots)
        return socket.envelope.serve(slots)

    return serve


_OPTION_NAMES = frozenset(ListenerOptions.__annotations__)
