"""Compiles the callbacks of a listener: one function for all messages, or several for different message types."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, Union, get_args, get_origin

from telex.annotations import is_typed_dict, split_annotated, union_members
from telex.calls import Call, Slots
from telex.codecs import Raw, Reader, Writer
from telex.connection import Socket
from telex.exceptions import ImproperlyConfiguredException
from telex.handlers.base import refuse_parameters
from telex.handlers.message_loop import Handle
from telex.plans import Build, Operation
from telex.protocol.jobs import BindTarget, CallTarget
from telex.signatures import AnyCallable, Kind, annotation_of, declared_method, describe, read_signature
from telex.threads import run_in_thread
from telex.types import Mode

__all__ = ("Receivers", "bind_message_scope", "bind_per_message", "compile_receivers", "declared_receivers", "receives")

F = TypeVar("F", bound=AnyCallable)
Answer: TypeAlias = Callable[[Any], Awaitable[object] | None]
"""Sends the answer to one message."""
BindAnswering: TypeAlias = Callable[[Socket, Slots], Callable[[Any, Answer], Awaitable[None]]]
"""Like a ``bind``, but its handles take the function that sends the answer."""

_MARK: Final = "__telex_receives__"


def receives(method: F) -> F:
    """Mark a method of a ``WebsocketListener`` that receives the messages of its ``data`` annotation's type."""
    setattr(method, _MARK, True)
    return method


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """The compiled callbacks of one listener, and the types of the messages and replies."""

    decode: Reader
    encode: Writer | None
    bind: Callable[[Socket, Slots], Handle]
    awaits: bool
    receives: tuple[Any, ...]
    operations: tuple[Operation, ...]
    bind_calls: BindTarget
    """Binds the callbacks for a connection that speaks telex.v1."""


def declared_receivers(listener: object, namespace: Mapping[str, object] | None = None) -> tuple[AnyCallable, ...]:
    """The methods of ``listener`` that take messages. Does not run properties; ignores unresolvable annotations.

    :raises ImproperlyConfiguredException: there is no such method, or a method looks like one but would get no message.
    """
    names = dict.fromkeys(name for kind in reversed(type(listener).__mro__) for name in vars(kind))
    methods = {name: method for name in names if (method := declared_method(listener, name)) is not None}
    takes = {name: annotation_of(method, "data", namespace) for name, method in methods.items()}
    found = [
        name
        for name, method in methods.items()
        if name == "on_receive" or hasattr(method, _MARK) or name in _names_by_tag(takes[name])
    ]
    if not found:
        raise ImproperlyConfiguredException(
            f"{describe(type(listener))} receives nothing: write async def on_receive(self, data: ...),"
            " or mark methods with @receives"
        )
    received = [kind for name in found for kind in union_members(takes[name]) or (takes[name],)]
    for name in methods.keys() - found:
        if takes[name] is None or name.startswith("_"):
            continue
        if name.startswith("on_") or (_names_by_tag(takes[name]) and takes[name] not in received):
            raise ImproperlyConfiguredException(
                f"{describe(methods[name])} takes 'data', but no message reaches it: mark it with @receives, name it"
                f" {' or '.join(sorted(_names_by_tag(takes[name]))) or 'after a tag'}, or begin its name with '_'"
            )
    return tuple(methods[name] for name in found)


def _names_by_tag(annotation: Any) -> frozenset[str]:
    """The method names that receive messages of this type."""
    tag = getattr(getattr(split_annotated(annotation)[0], "__struct_config__", None), "tag", None)
    return frozenset({tag, f"on_{tag}"}) if isinstance(tag, str) else frozenset()


def compile_receivers(
    build: Build,
    functions: tuple[AnyCallable, ...],
    receive_mode: Mode,
    send_mode: Mode,
    in_thread: bool,
    *,
    outlives: bool = False,
) -> Receivers:
    """Compile the callbacks against ``build.graph``; with ``outlives`` their calls go on when the client has left.

    :raises ImproperlyConfiguredException: a callback takes no ``data``, or two callbacks take the same type.
    """
    receivers = [_compile_one(build, fn, send_mode, in_thread, outlives) for fn in functions]
    operations = tuple(
        Operation(
            build.received(each.takes, receive_mode),
            build.sent(each.returns, send_mode) if each.encode is not None else None,
            parts=each.parts,
            description=inspect.getdoc(fn) or "",
        )
        for each, fn in zip(receivers, functions, strict=True)
    )
    if len(receivers) == 1:
        only = receivers[0]
        return Receivers(
            decode=build.reader(only.takes, receive_mode),
            encode=None if only.answers_itself else only.encode,
            bind=only.bind,
            awaits=only.awaits,
            receives=(only.takes,),
            operations=operations,
            bind_calls=_bind_only_target(only),
        )
    table = _table(build, receivers)
    return Receivers(
        decode=build.reader(reduce(or_, (each.takes for each in receivers)), receive_mode),
        encode=_as_encoded,
        bind=_bind_all(table),
        bind_calls=_bind_all_targets(table),
        awaits=True,
        receives=tuple(each.takes for each in receivers),
        operations=operations,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Receiver:
    """One callback. With ``answers_itself``, its handle sends the reply, because the cleanup must follow the reply."""

    takes: Any
    returns: Any
    where: str
    encode: Writer | None
    bind: Callable[[Socket, Slots], Handle]
    bind_target: Callable[[Socket, Slots], CallTarget]
    shared_target: CallTarget | None
    """The target of every connection, where no argument belongs to one."""
    awaits: bool
    answers_itself: bool
    parts: bool


def _compile_one(build: Build, fn: AnyCallable, mode: Mode, in_thread: bool, outlives: bool) -> _Receiver:
    signature = read_signature(fn, build.layer.signature_namespace)
    if "data" not in signature:
        raise build.wrong(f"{signature.where} takes no 'data': add the parameter data with the type of its messages")
    refuse_parameters(build, signature, ("request", "body"), "a listener: take 'data' and 'socket'")
    if signature.kind in {Kind.GENERATOR, Kind.MAYBE_GENERATOR}:
        raise build.wrong("a listener cannot yield from a sync function: write async def, whose items are the answer")
    parts = signature.kind is Kind.ASYNC_GENERATOR
    returns = _type_of_parts(build, signature.returns) if parts else signature.returns
    silent = returns in {None, type(None), NoReturn}
    encode = None if silent else build.writer(returns, mode)
    write = None if silent else build.frame_writer(returns)
    call = build.graph.call(fn, skip=("data",), scope="message", in_thread=in_thread)
    if outlives:
        _check_outlives(build, call, parts=parts)
    per_message = build.graph.is_per_message(call)
    answers_itself = per_message or parts
    awaits = answers_itself or call.in_thread or signature.kind in {Kind.ASYNC, Kind.MAYBE_ASYNC}
    bind_once = _bind_once(call)
    bind_answering = bind_message_scope(build, call) if per_message else _bind_parts(bind_once)

    def bind_target(socket: Socket, slots: Slots) -> CallTarget:
        bind = bind_answering if per_message else bind_once
        return CallTarget(bind(socket, slots), write, awaits, parts=parts, answers=per_message)

    return _Receiver(
        takes=signature["data"].full_annotation,
        returns=returns,
        where=signature.where,
        encode=encode,
        bind=_bind_sending(bind_answering, encode, mode, parts=parts) if answers_itself else bind_once,
        bind_target=bind_target,
        shared_target=None if per_message or call.arguments else CallTarget(_handle(call, []), write, awaits, parts),
        awaits=awaits,
        answers_itself=answers_itself,
        parts=parts,
    )


def _check_outlives(build: Build, call: Call, *, parts: bool) -> None:
    """Raise for an idempotent callback whose answer cannot be kept, or that would use what is closed."""
    if parts:
        raise build.wrong(
            f"{call.signature.where} answers in parts, and an idempotent listener keeps one answer for each key: give"
            " the generator a listener of its own, without idempotent="
        )
    for where in sorted(build.graph.closed_with_connection(call)):
        raise build.wrong(
            f"idempotent= lets a call go on when its client has left, but the dependency {where} is closed then: give"
            ' it Provide(..., scope="message")'
        )


def _type_of_parts(build: Build, returns: Any) -> Any:
    """The type of the items of an async generator.

    :raises ImproperlyConfiguredException: the annotation does not tell it.
    """
    kinds = {collections.abc.AsyncGenerator, collections.abc.AsyncIterator, collections.abc.AsyncIterable}
    if get_origin(returns) not in kinds or not get_args(returns):
        raise build.wrong(
            f"a listener that yields is annotated '-> AsyncIterator[T]' with the type of its items, not {returns!r}"
        )
    return get_args(returns)[0]


def _bind_parts(bind_once: Callable[[Socket, Slots], Handle]) -> BindAnswering:
    def bind(socket: Socket, slots: Slots) -> Callable[[Any, Answer], Awaitable[None]]:
        handle = bind_once(socket, slots)

        async def handle_and_answer(data: Any, answer: Answer) -> None:
            answered = answer(handle(data))
            if answered is not None:
                await answered

        return handle_and_answer

    return bind


def _bind_sending(
    bind_answering: BindAnswering, encode: Writer | None, mode: Mode, *, parts: bool
) -> Callable[[Socket, Slots], Handle]:
    """Wrap a handle that answers by a function: in plain mode an answer is a message, and each part is one."""

    def bind(socket: Socket, slots: Slots) -> Handle:
        async def send(reply: Any) -> None:
            if reply is not None and encode is not None and socket.is_open:
                await socket.send_data(encode(reply), mode)

        async def send_parts(reply: Any) -> None:
            async with aclosing(reply):
                async for part in reply:
                    await send(part)

        handle, answer = bind_answering(socket, slots), send_parts if parts else send

        def handle_and_send(data: Any) -> Awaitable[None]:
            return handle(data, answer)

        return handle_and_send

    return bind


def _bind_once(call: Call) -> Callable[[Socket, Slots], Handle]:
    """Bind when the connection starts: all arguments except ``data`` are available then."""
    return lambda _, slots: _handle(call, slots)


def _handle(call: Call, slots: Slots) -> Handle:
    first = call.signature.parameters[0]
    bound = call.bind(slots)
    handle = bound if first.name == "data" and first.positional else _by_name(bound)
    if call.in_thread:
        return _in_thread(handle)
    return _awaited(handle) if call.signature.kind is Kind.MAYBE_ASYNC else handle


def _awaited(handle: Handle) -> Handle:
    async def handle_and_await(data: Any) -> Any:
        reply = handle(data)
        return await reply if hasattr(reply, "__await__") else reply

    return handle_and_await


def _in_thread(handle: Handle) -> Handle:
    async def handle_in_thread(data: Any) -> Any:
        reply = await run_in_thread(handle, data)
        return await reply if hasattr(reply, "__await__") else reply

    return handle_in_thread


def _by_name(bound: AnyCallable) -> Handle:
    def handle(data: Any) -> Any:
        return bound(data=data)

    return handle


def bind_per_message(
    build: Build, call: Call, answering: Callable[[Socket, Slots], Answer]
) -> Callable[[Socket, Slots], Handle]:
    """Like :func:`bind_message_scope` for one way to answer.

    ``answering(socket, slots)`` gives the function that sends or publishes a result, which is never ``None``.
    """
    bind_answering = bind_message_scope(build, call)

    def bind(socket: Socket, slots: Slots) -> Handle:
        handle, answer = bind_answering(socket, slots), answering(socket, slots)

        def answer_value(result: Any) -> Awaitable[object] | None:
            return None if result is None else answer(result)

        def handle_and_answer(data: Any) -> Awaitable[None]:
            return handle(data, answer_value)

        return handle_and_answer

    return bind


def bind_message_scope(build: Build, call: Call) -> BindAnswering:
    """Create message-scoped arguments for each message; clean them up after it is answered or the call failed.

    The cleanup is not interrupted, whatever ended the call.
    """
    resolve = build.graph.message_resolver(call)

    def bind(socket: Socket, slots: Slots) -> Callable[[Any, Answer], Awaitable[None]]:
        reader = socket.event_reader

        async def handle(data: Any, answer: Answer) -> None:
            held = False
            try:
                async with AsyncExitStack() as exits:
                    try:
                        answered = answer(await call(await resolve(slots, data, exits), data=data))
                        if answered is not None:
                            await answered
                    finally:
                        held = True
                        reader.hold()
            finally:
                if held:
                    reader.let_go()

        return handle

    return bind


def _bind_only_target(only: _Receiver) -> BindTarget:
    shared = only.shared_target
    if shared is not None:

        def find(_: Any) -> CallTarget:
            return shared

        return lambda _, __: find

    def bind(socket: Socket, slots: Slots) -> Callable[[Any], CallTarget]:
        target = only.bind_target(socket, slots)
        return lambda _: target

    return bind


def _bind_all_targets(table: dict[type, _Receiver]) -> BindTarget:
    def bind(socket: Socket, slots: Slots) -> Callable[[Any], CallTarget]:
        targets = {kind: receiver.bind_target(socket, slots) for kind, receiver in table.items()}
        return lambda data: targets[type(data)]

    return bind


def _table(build: Build, receivers: list[_Receiver]) -> dict[type, _Receiver]:
    table: dict[type, _Receiver] = {}
    for receiver in receivers:
        for kind in _runtime_types(receiver.takes, receiver.where):
            if kind in table:
                raise build.wrong(
                    f"{table[kind].where} and {receiver.where} both receive {kind.__name__}: give each its own types"
                )
            table[kind] = receiver
    return table


def _bind_all(table: dict[type, _Receiver]) -> Callable[[Socket, Slots], Handle]:
    def bind(socket: Socket, slots: Slots) -> Handle:
        handles = {id(receiver): receiver.bind(socket, slots) for receiver in table.values()}
        bound = {kind: (handles[id(receiver)], receiver) for kind, receiver in table.items()}

        async def handle(data: Any) -> Raw | None:
            call, receiver = bound[type(data)]
            reply = await call(data) if receiver.awaits else call(data)
            return None if reply is None or receiver.encode is None else receiver.encode(reply)

        return handle

    return bind


def _runtime_types(annotation: Any, where: str) -> tuple[type, ...]:
    """The classes of decoded messages of ``annotation``.

    :raises ImproperlyConfiguredException: the annotation has a member that is no class; the text names ``where``.
    """
    annotation, _ = split_annotated(annotation)
    if get_origin(annotation) in {Union, types.UnionType}:
        return tuple(kind for member in get_args(annotation) for kind in _runtime_types(member, where))
    if is_typed_dict(annotation):
        return (dict,)
    origin = get_origin(annotation) or annotation
    if not isinstance(origin, type) or origin in {object, Any}:
        raise ImproperlyConfiguredException(
            f"'data' of {where}: {annotation!r} cannot be distinguished from other messages:"
            " give each receiver concrete types"
        )
    return (origin,)


def _as_encoded(reply: Raw) -> Raw:
    return reply
