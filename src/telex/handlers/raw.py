"""``websocket``: the low-level handler. Its function accepts, receives, sends and closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, Unpack

from telex.connection import WebSocket
from telex.event_reader import supervised
from telex.handlers.base import (
    ContractOptions,
    FrameProtocol,
    Handler,
    Paths,
    check_function,
    check_protocol,
    own_options,
    read_paths,
    refuse_parameters,
)
from telex.handlers.frame_calls import speak_incoming
from telex.plans import Build, MessageShape, Operation, Run
from telex.signatures import Kind, describe, read_signature

__all__ = ("WebsocketHandler", "WebsocketOptions", "websocket")

RawFunction: TypeAlias = Callable[..., Awaitable[None]]


class WebsocketOptions(ContractOptions, total=False):
    """The options of ``websocket`` in addition to ``path`` and ``name``."""

    receives: Any
    """The type of the messages that clients may send, as ``pushes`` for the other direction."""
    protocol: FrameProtocol | None
    """``telex.v1``: speak it with clients that offer it; take their calls and notifies from ``socket.incoming()``."""


_ABOUT_FRAMES: Final = ("call_timeout", "max_calls", "max_streams", "errors")


@dataclass(frozen=True, kw_only=True)
class WebsocketHandler(Handler):
    """The description of a low-level handler."""

    kind: ClassVar[str] = "websocket"

    receives: Any = None
    protocol: FrameProtocol | None = None

    def compile_run(self, build: Build) -> Run:
        """Check that the function takes ``socket``, is asynchronous and returns ``None``; the run calls it."""
        signature = read_signature(self.fn, build.layer.signature_namespace)
        refuse_parameters(build, signature, ("data", "request", "body"), "a websocket handler: read from 'socket'")
        self.refuse_idle(build, ("dto", "return_dto"), "a websocket handler reads and sends itself")
        if self.protocol is None:
            self.refuse_idle(build, ("on_invalid_message",), "a websocket handler reads and sends itself")
            self.refuse_idle(build, _ABOUT_FRAMES, "this handler speaks no frames: add protocol='telex.v1'")
        else:
            speak_incoming(build)
            build.prefers_envelope = True
        if "socket" not in signature:
            raise build.wrong("a websocket handler takes 'socket': add the parameter socket: WebSocket")
        if signature.kind not in {Kind.ASYNC, Kind.MAYBE_ASYNC}:
            raise build.wrong("a websocket handler is asynchronous: write async def")
        if signature.returns not in {None, type(None)}:
            raise build.wrong(f"a websocket handler returns nothing: annotate '-> None', not {signature.returns!r}")
        self.describe_sent(build)
        if self.receives is not None:
            build.operations = (Operation(MessageShape(self.receives, self.send_mode)),)
        call, by_result = build.graph.call(self.fn), signature.kind is Kind.MAYBE_ASYNC

        async def run(socket: WebSocket[Any, Any, Any], slots: list[Any]) -> None:
            await supervised(call(slots) if by_result else call.bind(slots)(), socket.event_reader)

        return run


def websocket(
    path: Paths = None, *, name: str | None = None, **options: Unpack[WebsocketOptions]
) -> Callable[[RawFunction], WebsocketHandler]:
    """Create a low-level handler from an async function that takes ``socket``.

    The first receive or send accepts the connection if the function has not called ``accept``. When the function
    returns, the connection is closed with 1000, or the handshake is refused if it was not accepted.

    :param path: one path or several; default ``/``.
    :param name: the handler's name for ``route_reverse`` and ``url_for``.
    :param options: the options of :class:`WebsocketOptions`, which include all layered options.
    """

    def decorate(fn: RawFunction) -> WebsocketHandler:
        check_function(fn, "websocket")
        where = describe(fn)
        own, layer = own_options(options, WebsocketOptions, where)
        check_protocol(own.get("protocol"), where)
        return WebsocketHandler(fn=fn, paths=read_paths(path), name=name, layer=layer, **own)

    return decorate
