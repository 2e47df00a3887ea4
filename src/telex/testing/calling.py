"""What a test does on a connection that speaks ``telex.v1``: calls, answers in parts, notifies, answers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Literal, NoReturn, Self, TypeAlias, TypeVar, get_type_hints, overload

import msgspec

from telex.codecs import as_validation_error, frame_reader, frame_writer
from telex.exceptions import CallError
from telex.protocol import frames
from telex.protocol.asking import read_data
from telex.protocol.frames import Encoded
from telex.testing.frame_client import FrameClient, OpenCall
from telex.testing.frames import FrameHead
from telex.testing.matching import describe, is_type

__all__ = ("AsyncItems", "AsyncPendingCall", "CallMethods", "Credit")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])
Credit: TypeAlias = Literal["auto", "manual"]
"""Who gives credit for the parts of an answer: the session, as they are read, or the test."""

_write: Final = frame_writer(Any)
_MORE: Final = 8
"""Items that a test reads before it gives credit for as many."""


class CallMethods(ABC):
    """The methods of a session on ``telex.v1``. ``timeout`` is in seconds; ``None`` means the session's default.

    On a connection in plain mode they raise ``ConnectionStateError``.
    """

    timeout: float

    @property
    def hello(self) -> dict[str, Any]:
        """The first frame of the app; empty if it sent another one first."""
        return self._speaking().hello or {}

    @overload
    async def call(
        self,
        data: object,
        answer: type[T],
        timeout: float | None = ...,
        *,
        key: str | None = ...,
        frame: Mapping[str, object] = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        data: object,
        answer: Any = ...,
        timeout: float | None = ...,
        *,
        key: str | None = ...,
        frame: Mapping[str, object] = ...,
    ) -> Any: ...
    async def call(
        self,
        data: object,
        answer: Any = Any,
        timeout: float | None = None,
        *,
        key: str | None = None,
        frame: Mapping[str, object] = {},
    ) -> Any:
        """Call the app, and return its answer as the type ``answer``; ``None`` if the answer has no data.

        ``key`` is for idempotent listeners. ``frame`` has further fields of the frame: ``timeout``, ``meta``. A call
        that no answer comes to is cancelled.

        :raises CallError: the app answered with an error: its ``code``, ``message`` and ``data``.
        :raises AssertionError: the answer is no ``answer``.
        :raises WebSocketDisconnect: the connection ended first.
        :raises TimeoutError: no answer came, or there was no credit for the call.
        :raises Exception: the exception of the handler, unless ``raise_server_exceptions=False``.
        """
        pending = await self.begin(data, timeout, key=key, frame=frame)
        return await pending.result(answer, timeout)

    async def begin(
        self,
        data: object,
        timeout: float | None = None,
        *,
        key: str | None = None,
        frame: Mapping[str, object] = {},
    ) -> AsyncPendingCall:
        """Send a call and do not wait for its answer: for calls that are cancelled, or answered out of order."""
        fields = frame if key is None else {**frame, "key": key}
        return AsyncPendingCall(self, await self._begin(data, timeout, fields))

    @overload
    def stream(
        self, data: object, item: type[T], *, credit: Credit = ..., frame: Mapping[str, object] = ...
    ) -> AsyncItems[T]: ...
    @overload
    def stream(
        self, data: object, item: Any = ..., *, credit: Credit = ..., frame: Mapping[str, object] = ...
    ) -> AsyncItems[Any]: ...
    def stream(
        self,
        data: object,
        item: Any = Any,
        *,
        credit: Credit = "auto",
        frame: Mapping[str, object] = {},
    ) -> AsyncItems[Any]:
        """Call a handler that answers in parts: iterate to read them as the type ``item``.

        ``async with`` cancels the call at the end of the block. With ``credit="manual"`` the test gives credit for more
        than 16 items by :meth:`AsyncItems.more`.
        """
        return AsyncItems(self, partial(self._begin, data, None, frame), item, gives_credit=credit == "auto")

    async def notify(self, data: object, timeout: float | None = None) -> None:
        """Send a message that wants no answer; bytes travel as they are, other values as JSON.

        :raises TimeoutError: there was no credit for it.
        """
        payload = frames.frame('{"type":"notify"', _write(data))
        await self._within(self._speaking().notify(payload), timeout, "no credit for a notify came")

    @overload
    def answer(self, kind: F) -> F: ...
    @overload
    def answer(self, kind: Any, reply: object) -> None: ...
    def answer(self, kind: Any, reply: object = ...) -> Any:
        """Answer calls of the server whose data is a ``kind``, until the end of the session.

        ``reply`` is the answer, or a function of the data that returns it, sync or async. A function alone answers
        calls with what its parameter is annotated with, and may be decorated: ``@session.answer``. It may raise
        ``CallError(code, message, data)``. The answer that was given last comes first. Calls that none of them takes
        are left to ``expect``. A function runs on the app's event loop.
        """
        function: Callable[[Any], object]
        if reply is ...:
            function, kind = kind, _parameter_of(kind)
        elif callable(reply) and not is_type(reply):
            function = reply
        else:
            function = partial(_constantly, reply)
        self._speaking().answer(kind, function)
        return function

    # -- what the session gives

    @abstractmethod
    def _speaking(self) -> FrameClient:
        """The frames of this connection.

        :raises ConnectionStateError: it is in plain mode.
        """

    @abstractmethod
    async def _within(self, wait: Coroutine[Any, Any, T], timeout: float | None, what: str) -> T:
        """Wait at most ``timeout`` seconds; the text of a ``TimeoutError`` begins with ``what``."""

    @abstractmethod
    def _failed_call(self) -> BaseException | None:
        """The exception of the handler, or of a function that answers, behind the error of a call."""

    async def _begin(self, data: object, timeout: float | None, fields: Mapping[str, object]) -> OpenCall:
        payload, client = _write(data), self._speaking()
        more = msgspec.json.encode(fields).decode()[1:-1] if fields else ""

        def write(call_id: int) -> Encoded:
            return frames.frame(f'{{"type":"call","id":{call_id}' + (f",{more}" if more else ""), payload)

        return await self._within(client.begin(write), timeout, "no credit for a call came")

    async def _send_frame(self, text: str) -> None:
        await self._speaking().send(text)

    def _fail(self, error: FrameHead) -> NoReturn:
        body = error.error or frames.ErrorBody("")
        failure = self._failed_call() if body.code == "internal" else None
        raise failure or CallError(body.code, body.message, body.data)


class AsyncPendingCall:
    """A call that has been sent, of :meth:`CallMethods.begin`."""

    def __init__(self, session: CallMethods, call: OpenCall) -> None:
        """Made by ``begin``."""
        self.id: int = call.id
        self._session = session
        self._call = call

    @overload
    async def result(self, answer: type[T], timeout: float | None = ...) -> T: ...
    @overload
    async def result(self, answer: Any = ..., timeout: float | None = ...) -> Any: ...
    async def result(self, answer: Any = Any, timeout: float | None = None) -> Any:
        """Wait for the answer; the exceptions are those of :meth:`CallMethods.call`."""
        session, call = self._session, self._call
        try:
            final = await session._within(call.next(), timeout, f"no answer to the call {call.id} came")
        except TimeoutError:
            await self.cancel()
            raise
        if final.type == "error":
            session._fail(final)
        if final.type != "reply":
            await self.cancel()
            raise AssertionError(f"the call {call.id} was answered in parts: use stream() for it")
        return _read(final, answer, f"the answer to the call {call.id}")

    async def cancel(self) -> None:
        """Ask the app to stop: :meth:`result` then raises ``CallError`` ``cancelled``, or the answer was quicker."""
        if self._call.final is None and self._call.closed is None:
            await self._session._send_frame(f'{{"type":"cancel","id":{self.id}}}')


class AsyncItems(Generic[T]):
    """The parts of an answer, of :meth:`CallMethods.stream`."""

    def __init__(
        self,
        session: CallMethods,
        begin: Callable[[], Coroutine[Any, Any, OpenCall]],
        item: Any,
        *,
        gives_credit: bool,
    ) -> None:
        """Made by ``stream``."""
        self._session = session
        self._begin = begin
        self._item = item
        self._gives_credit = gives_credit
        self._call: OpenCall | None = None
        self._read = 0

    async def __aenter__(self) -> Self:
        await self._begun()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self.receive()

    async def receive(self, timeout: float | None = None) -> T:
        """The next item.

        :raises StopAsyncIteration: the answer is complete.
        :raises CallError: the app answered with an error.
        :raises AssertionError: the item is not of the type, or the app answered with one reply.
        :raises TimeoutError: no item came, for example because no credit is left.
        """
        session, call = self._session, await self._begun()
        head = await session._within(call.next(), timeout, f"no item of the call {call.id} came")
        match head.type:
            case "item":
                await self._count(call)
                return _read(head, self._item, f"an item of the call {call.id}")  # type: ignore[no-any-return]
            case "end":
                raise StopAsyncIteration
            case "error":
                session._fail(head)
        raise AssertionError(f"the call {call.id} was answered with one reply: use call() for it")

    async def more(self, count: int) -> None:
        """Give credit for ``count`` more items."""
        call = await self._begun()
        call.granted += count
        if call.final is None:
            await self._session._send_frame(f'{{"type":"more","id":{call.id},"n":{count}}}')

    async def cancel(self, timeout: float | None = None) -> None:
        """Stop the answer and wait for its end; items that come until then are dropped."""
        call = await self._begun()
        if call.final is not None or call.closed is not None:
            return
        call.drops = True
        await self._session._send_frame(f'{{"type":"cancel","id":{call.id}}}')
        await self._session._within(call.next(), timeout, f"the end of the cancelled call {call.id} did not come")

    async def _begun(self) -> OpenCall:
        if self._call is None:
            self._call = await self._begin()
        return self._call

    async def _count(self, call: OpenCall) -> None:
        self._read += 1
        if self._gives_credit and self._read >= _MORE and call.final is None:
            self._read = 0
            await self.more(_MORE)


def _read(head: FrameHead, kind: Any, what: str) -> Any:
    if not head.data and head.payload is None and kind in (Any, None):
        return None
    if kind is Any and head.payload is not None:
        return head.payload
    try:
        return read_data(head.data, head.payload, *frame_reader(kind))
    except Exception as exc:
        invalid = as_validation_error(exc)
        if invalid is None:
            raise
        got = head.payload if head.payload is not None else bytes(head.data).decode()
        where = f" at {invalid.path}" if invalid.path else ""
        raise AssertionError(f"{what} is not {describe(kind)}: {invalid.detail}{where}; got {got!r:.500}") from exc


def _parameter_of(function: Callable[..., object]) -> Any:
    parameters = list(inspect.signature(function).parameters)
    return get_type_hints(function, include_extras=True).get(parameters[0], Any) if parameters else Any


def _constantly(value: object, _: object) -> object:
    return value
