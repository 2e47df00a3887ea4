"""Compiles how a ``channel_listener`` publishes what its clients send, as messages and as calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from telex.calls import Slots
from telex.channels.events import Position, kind_of
from telex.channels.hub import Channels
from telex.codecs import Reader
from telex.connection import Socket
from telex.handlers.message_loop import Handle
from telex.handlers.receivers import bind_message_scope, bind_per_message
from telex.plans import Build
from telex.protocol.jobs import CallTarget
from telex.signatures import AnyCallable, read_signature

__all__ = ("Publishing", "compile_publishing", "only_text")

Publish: TypeAlias = Callable[[Any], Awaitable[Mapping[str, Position]]]


class Publishing(NamedTuple):
    """How the messages of clients are published."""

    sends: Any
    """The type of what is published."""
    bind: Callable[[Socket, Slots], Handle]
    """Binds a handle for plain messages. The last slot is the name of the channel."""
    bind_target: Callable[[Socket, Slots], CallTarget]
    """The same for calls, which are answered with the position of the event."""


def compile_publishing(
    build: Build, hub: Channels, publish: Any, on_publish: AnyCallable | None, *, in_thread: bool, text_alone: bool
) -> Publishing:
    """Compile ``publish`` and ``on_publish`` of a ``channel_listener``; ``text_alone`` refuses bytes that are no text.

    :raises ImproperlyConfiguredException: ``on_publish`` does not take messages of the type ``publish``.
    """
    if on_publish is None:
        return _publish_as_received(build, hub, publish)
    signature = read_signature(on_publish, build.layer.signature_namespace)
    if "data" not in signature:
        raise build.wrong(f"on_publish= {signature.where} takes no 'data': name the message's parameter 'data'")
    if _never_fits(publish, taken := signature["data"].annotation):
        raise build.wrong(
            f"on_publish= {signature.where} takes data: {taken.__qualname__}, but publish= is"
            f" {publish.__qualname__}: write the same type in both"
        )
    call = build.graph.call(on_publish, skip=("data",), scope="message", in_thread=in_thread)
    bind_publish = _bind_publish(build, hub, signature.returns, text_alone=text_alone)
    bind_handle = bind_message_scope(build, call)

    def bind_target(socket: Socket, slots: Slots) -> CallTarget:
        handle, publish = bind_handle(socket, slots), _to_the_end(socket, bind_publish(socket, slots))

        async def handle_and_publish(data: Any, answer: Callable[[Any], Awaitable[None]]) -> None:
            async def publish_and_answer(value: Any) -> None:
                await answer({} if value is None else await publish(value))

            await handle(data, publish_and_answer)

        return CallTarget(handle_and_publish, _write_receipt, awaits=True, answers=True)

    return Publishing(signature.returns, bind_per_message(build, call, bind_publish), bind_target)


def _publish_as_received(build: Build, hub: Channels, publish: Any) -> Publishing:
    bind_publish = _bind_publish(build, hub, publish, text_alone=False)

    def bind_target(socket: Socket, slots: Slots) -> CallTarget:
        return CallTarget(_to_the_end(socket, bind_publish(socket, slots)), _write_receipt, awaits=True)

    return Publishing(publish, bind_publish, bind_target)


def _to_the_end(socket: Socket, publish: Publish) -> Publish:
    """``publish``, which a client that leaves meanwhile does not interrupt.

    In telex.v1 a session reads while it publishes, so it notices at once that a client has closed after its last words.
    """
    reader = socket.event_reader

    async def publish_to_the_end(value: Any) -> Mapping[str, Position]:
        reader.hold()
        try:
            return await publish(value)
        finally:
            reader.let_go()

    return publish_to_the_end


def _bind_publish(
    build: Build, hub: Channels, annotation: Any, *, text_alone: bool
) -> Callable[[Socket, Slots], Publish]:
    encode = build.writer(annotation, "binary", by_value=True)

    def bind(_: Socket, slots: Slots) -> Publish:
        def publish(value: Any) -> Awaitable[Mapping[str, Position]]:
            if text_alone and isinstance(value, bytes):
                value.decode()  # invalid UTF-8 would end the connections of text subscribers
            return hub.publish(slots[-1], encode(value), kind=kind_of(value))

        return publish

    return bind


def _write_receipt(positions: Mapping[str, Position]) -> str:
    """The answer to a call that has published: the position of the event, where the channel has history."""
    position = next(iter(positions.values()), None)
    return msgspec.json.encode({} if position is None else {"position": str(position)}).decode()


def only_text(read: Reader) -> Reader:
    """Wrap ``read``: reject bytes that are not valid UTF-8, because subscribers get them as text."""

    def read_text(raw: str | bytes) -> Any:
        value = read(raw)
        if isinstance(value, bytes):
            value.decode()
        return value

    return read_text


def _never_fits(published: Any, taken: Any) -> bool:
    """Whether a value of class ``published`` is never an instance of ``taken``; false for types that are no classes."""
    if Any in (published, taken) or not (isinstance(published, type) and isinstance(taken, type)):
        return False
    try:
        return not issubclass(published, taken) and (published, taken) != (int, float)
    except TypeError:
        return False
