"""``websocket_stream`` and ``send_websocket_stream``: send the values of a generator to the client."""

from __future__ import annotations

import collections.abc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, Unpack, get_args, get_origin

from telex.codecs import Writer
from telex.connection import Socket
from telex.event_reader import supervised
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.handlers.base import (
    ContractOptions,
    FrameProtocol,
    Handler,
    Paths,
    check_function,
    check_mode,
    check_protocol,
    discard,
    own_options,
    read_paths,
    refuse_parameters,
)
from telex.handlers.frame_calls import speak_incoming
from telex.plans import Build, Run
from telex.protocol.envelope import Envelope
from telex.signatures import describe, read_signature
from telex.status_codes import WS_1003_UNSUPPORTED_DATA
from telex.streams import SendHandler, send_stream
from telex.types import Mode

__all__ = ("StreamHandler", "StreamOptions", "send_websocket_stream", "websocket_stream")

StreamFunction: TypeAlias = Callable[..., AsyncGenerator[Any, None]]
UnreadPolicy: TypeAlias = Callable[[bool], Exception | bool]

logger: Final = logging.getLogger("telex")


class StreamOptions(ContractOptions, total=False):
    """The options of ``websocket_stream`` in addition to ``path`` and ``name``."""

    mode: Mode
    """The mode in which values are sent."""
    listen_for_disconnect: bool
    """Read from the socket to stop the generator when the client leaves (default true)."""
    allow_data_discard: bool
    """Ignore messages of the client. Otherwise a message that the generator cannot read closes with 1003. Calls of
    telex.v1 that it cannot read are answered with an error."""
    protocol: FrameProtocol | None
    """``telex.v1``: speak it with clients that offer it, also if the handler names other subprotocols in ``accept``."""


@dataclass(frozen=True, kw_only=True)
class StreamHandler(Handler):
    """The description of a stream."""

    kind: ClassVar[str] = "stream"

    listen_for_disconnect: bool = True
    allow_data_discard: bool = False
    protocol: FrameProtocol | None = None

    def compile_run(self, build: Build) -> Run:
        """Accept, then send the generator's values until it ends or the client leaves."""
        signature = read_signature(self.fn, build.layer.signature_namespace)
        refuse_parameters(build, signature, ("data", "request", "body"), "a stream: receive from 'socket'")
        self.refuse_idle(build, ("on_invalid_message",), "a stream takes no messages")
        if not self.listen_for_disconnect and "socket" not in signature:
            self.refuse_idle(
                build, ("message_limit", "byte_limit"), "a stream with listen_for_disconnect=False reads nothing"
            )
        yields = _yielded_type(build, signature.returns)
        build.pushes = (build.sent(yields, self.send_mode),)
        self.describe_sent(build)
        call = build.graph.call(self.fn)
        write_frame = build.frame_writer(yields)
        write, mode = build.writer(yields, self.send_mode, by_value=True), self.send_mode
        on_unread = discard if self.allow_data_discard else _refuse_data(build.where, keeps="socket" in signature)
        listen = self.listen_for_disconnect
        speak_incoming(build, None if "socket" in signature else on_unread)
        build.prefers_envelope = self.protocol is not None

        async def run(socket: Socket, slots: list[Any]) -> None:
            await socket.accept()
            if socket.envelope is not None:
                sending = _notify_all(socket.envelope, call.bind(slots)(), write_frame)
                await supervised(sending, socket.event_reader)
                return
            if not listen:
                await _send_all(socket, call.bind(slots)(), write, mode)
                return
            socket.event_reader.on_unread = on_unread
            await supervised(_send_all(socket, call.bind(slots)(), write, mode), socket.event_reader)

        return run


def websocket_stream(
    path: Paths = None, *, name: str | None = None, **options: Unpack[StreamOptions]
) -> Callable[[StreamFunction], StreamHandler]:
    """Create a stream handler from an async generator function: each value that it yields is sent.

    ``str`` and ``bytes`` are sent unchanged, other values as JSON, through the layer's ``return_dto`` if there is one.
    When the client leaves, the generator is closed before its dependencies are cleaned up. When the generator is
    exhausted, the connection closes with 1000.

    A message from the client closes with 1003, unless ``allow_data_discard=True`` or the generator takes ``socket``. A
    generator that takes ``socket`` can receive messages; until then the bounded receive queue keeps them.
    """

    def decorate(fn: StreamFunction) -> StreamHandler:
        check_function(fn, "websocket_stream")
        where = describe(fn)
        own, layer = own_options(options, StreamOptions, where)
        send_mode: Mode = own.pop("mode", "text")
        check_mode(send_mode, "mode", where)
        check_protocol(own.get("protocol"), where)
        return StreamHandler(fn=fn, paths=read_paths(path), name=name, layer=layer, send_mode=send_mode, **own)

    return decorate


async def send_websocket_stream(
    socket: Socket,
    stream: AsyncIterator[Any],
    *,
    close: bool = True,
    mode: Mode = "text",
    send_handler: SendHandler | None = None,
    listen_for_disconnect: bool = False,
    allow_data_discard: bool = False,
) -> None:
    """Send the values of ``stream`` over ``socket``. Accepts the connection first if necessary.

    Returns when the stream is exhausted or the client has left. Exceptions of the generator are raised here.

    :param close: close the connection with 1000 after the end of the stream.
    :param send_handler: called with the socket and each value, instead of encoding and sending the value.
    :param listen_for_disconnect: read from the socket to detect that the client leaves. Without it, other code must
        read from the socket, as a listener does.
    :param allow_data_discard: with ``listen_for_disconnect``, ignore messages that no task receives.
    :raises WebSocketException: 1003, a message arrived that no task receives.
    """
    if socket.connection_state in {"init", "connect"}:
        await socket.ensure_accepted()
    if send_handler is None and socket.envelope is not None:
        send_handler = type(socket).notify
    sending = send_stream(socket, stream, socket.options.value_writer(mode), mode, send_handler)
    try:
        if listen_for_disconnect:
            await _listen_while(socket, sending, allow_data_discard)
        else:
            await sending
    except WebSocketDisconnect:
        if not socket.has_left() and socket.is_open:
            raise
    if close:
        await socket.close()


async def _listen_while(socket: Socket, sending: collections.abc.Coroutine[Any, Any, None], allow: bool) -> None:
    reader = socket.event_reader
    if socket.envelope is not None:  # its messages wait for ``incoming``, within the client's credit
        await supervised(sending, reader)
        return
    before, reader.on_unread = reader.on_unread, discard if allow else _refuse_data("send_websocket_stream")
    reader.read_ahead()
    try:
        await supervised(sending, reader)
    finally:
        reader.on_unread = before


async def _send_all(socket: Socket, stream: AsyncGenerator[Any, None], write: Writer, mode: Mode) -> None:
    try:
        async for value in stream:
            await socket.send_data(write(value), mode)
    finally:
        await stream.aclose()


async def _notify_all(envelope: Envelope, stream: AsyncGenerator[Any, None], write: Writer) -> None:
    try:
        async for value in stream:
            await envelope.notify_encoded(write(value))
    finally:
        await stream.aclose()


def _yielded_type(build: Build, returns: Any) -> Any:
    if get_origin(returns) is not collections.abc.AsyncGenerator or not get_args(returns):
        raise build.wrong(
            f"a stream must be annotated '-> AsyncGenerator[T, None]' with the type that it yields, not {returns!r}"
        )
    return get_args(returns)[0]


def _refuse_data(where: str, *, keeps: bool = False) -> UnreadPolicy:
    """End the stream when a message arrives that no task receives; with ``keeps``, only when the queue is full."""

    def refuse(full: bool) -> Exception | bool:
        if keeps and not full:
            return True
        logger.error(
            "%s: the client sent data that the stream does not receive; set allow_data_discard=True to ignore it,"
            " or add the parameter 'socket' and receive from it",
            where,
        )
        return WebSocketException(WS_1003_UNSUPPORTED_DATA, "this stream takes no data")

    return refuse
