"""One connection to NATS for concurrent requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, TypeAlias, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, SlowConsumerError

from telex.channels.backends.base import BrokerRefusal
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("Login", "NatsConnection", "NatsServer", "heeding")

logger: logging.Logger = logging.getLogger("telex.channels")

CLOSING_SECONDS: Final = 0.5
"""How long closing may take. The library would wait for ever after it has refused a certificate."""

_VIOLATION: Final = re.compile(r'permissions violation for (?:subscription|publish) to "([^"]*)"', re.IGNORECASE)

T = TypeVar("T")


class Login(NamedTuple):
    """The credentials of the client."""

    user: str | None = None
    password: str | None = None
    token: str | None = None


class NatsServer(NamedTuple):
    """The servers, the credentials and the TLS context; ``timeout`` (seconds) limits each answer."""

    urls: list[str]
    login: Login
    tls: ssl.SSLContext | None
    timeout: float

    @property
    def needs_tls(self) -> bool:
        return self.tls is not None or any(url.startswith("tls://") for url in self.urls)


class _Client(Client):
    """The library's client with two changes that need its private attributes.

    Without them, the client would send the password unencrypted if TLS was requested and the server has none; and
    closing would wait for its buffers, which a suspended server never reads.
    """

    def __init__(self, needs_tls: bool) -> None:
        super().__init__()
        self._needs_tls = needs_tls

    def _connect_command(self) -> bytes:
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise Error("TLS was requested, but the server does not require it")
        return super()._connect_command()

    def abort(self) -> None:
        """End the subscriptions and abort the transport, without waiting."""
        for subscription in self._subs.values():
            subscription._stop_processing()
        self._subs.clear()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


Refuse: TypeAlias = Callable[[str, BrokerRefusal], object]


class _Question:
    """Collects an answer up to the message for which ``until`` is true. A refusal of ``subjects`` calls ``refuse``."""

    def __init__(self, until: Callable[[Msg], bool], subjects: Collection[str], refuse: Refuse | None) -> None:
        self._until = until
        self.subjects = subjects
        self.refuse: Refuse = refuse or self._fail
        self._messages: list[Msg] = []
        self.scope: asyncio.Timeout | None = None
        self.answered: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg, timeout: float) -> None:
        self._messages.append(message)
        if self.answered.done():
            return
        if self._until(message):
            self.answered.set_result(self._messages)
        elif self.scope is not None and not self.scope.expired():
            # Each part of the answer extends the time-out.
            self.scope.reschedule(self.answered.get_loop().time() + timeout)

    def _fail(self, _: str, refusal: BrokerRefusal) -> None:
        if not self.answered.done():
            self.answered.set_exception(refusal)


class NatsConnection:
    """One connection. The client library does not reconnect it: the hub reconnects and recovers the missed events."""

    def __init__(self, server: NatsServer, on_lost: Callable[[BackendUnavailable], None] | None) -> None:
        self._server = server
        self._on_lost = on_lost
        self._failure: BackendUnavailable | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self.client: _Client = _Client(server.needs_tls)
        self._inbox = self.client.new_inbox()
        self._numbers = itertools.count()
        self._questions: dict[str, _Question] = {}

    @property
    def is_closed(self) -> bool:
        return self._failure is not None or self.client.is_closed

    async def open(self) -> None:
        """Connect.

        :raises BackendUnavailable: no server answers.
        """
        try:
            async with asyncio.timeout(self._server.timeout):
                await heeding(self._connect())
        except (Error, OSError, TimeoutError) as error:
            await self.close()
            raise BackendUnavailable(f"NATS does not answer: {error!r}") from error
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        login = self._server.login
        await self.client.connect(
            self._server.urls,
            user=login.user,
            password=login.password,
            token=login.token,
            tls=self._server.tls,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(1, round(self._server.timeout)),
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )
        await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def close(self) -> None:
        """Disconnect, without waiting long for a server that does not answer."""
        self._on_lost = None
        try:
            with suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self.client.close()
        finally:
            self.client.abort()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[asyncio.Timeout]:
        """Limit the body by the time-out; the loss of the connection ends it at once.

        :raises BackendUnavailable: the server did not answer.
        """
        if self._failure is not None:
            raise BackendUnavailable(self._failure.detail)
        scope = asyncio.timeout(self._server.timeout)
        try:
            async with scope:
                self._waiting.add(scope)
                yield scope
        except (Error, OSError, TimeoutError) as error:
            detail = self._failure.detail if self._failure else f"NATS did not answer: {error!r}"
            raise BackendUnavailable(detail) from error
        finally:
            self._waiting.discard(scope)

    async def ask(
        self,
        subject: str,
        payload: bytes = b"",
        /,
        until: Callable[[Msg], bool] = lambda _: True,
        headers: dict[str, str] | None = None,
    ) -> list[Msg]:
        """Send ``payload`` to ``subject``; returns the answer after the first message for which ``until`` is true.

        :raises BrokerRefusal: this connection may not publish there.
        :raises BackendUnavailable: the connection is lost, or no part of the answer arrived in time.
        :raises ChannelsException: the payload is too large.
        """
        inbox, question = self._expect(until, (subject,))
        try:
            async with self.answering() as question.scope:
                await self.publish(subject, payload, reply=inbox, headers=headers)
                return await question.answered
        finally:
            del self._questions[inbox]

    async def publish_confirmed(
        self, subjects: Collection[str], payload: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Send ``payload`` to ``subjects``; returns when the server has it.

        :raises BrokerRefusal: this connection may not publish to one of them.
        :raises BackendUnavailable: the server did not confirm in time; the connection then fails.
        :raises ChannelsException: the payload is too large.
        """
        async with self.confirming(subjects):
            for subject in subjects:
                await self.publish(subject, payload, headers=headers)

    async def ping(self) -> None:
        """Ping the server.

        :raises BackendUnavailable: it did not answer in time; the connection then fails.
        """
        async with self.confirming():
            pass

    @asynccontextmanager
    async def confirming(self, subjects: Collection[str] = (), refuse: Refuse | None = None) -> AsyncIterator[None]:
        """Wait at the end of the body until the server has handled all commands, or fail the connection.

        The client library's ``flush`` is not sufficient: its PING overtakes commands that wait in the buffer. A message
        to the own inbox keeps the order. ``refuse`` is called with each of ``subjects`` that this connection may not
        use; without ``refuse`` the refusal is raised.

        :raises BackendUnavailable: the server did not answer in time.
        """
        inbox, question = self._expect(lambda _: True, subjects, refuse)
        try:
            async with self.answering():
                yield
                await self.publish(inbox, b"")
                await question.answered
        except BrokerRefusal:
            raise
        except BackendUnavailable as error:
            self.fail(error.detail)
            raise
        finally:
            del self._questions[inbox]

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send ``payload``; within :meth:`answering`.

        :raises ChannelsException: it is too large.
        """
        # The library does not count the headers, and the server closes the connection.
        limit = self.client.max_payload - _size_of(headers)
        if len(payload) > limit:
            raise ChannelsException(
                f"a value of {len(payload):,} bytes is larger than the {limit:,} that this NATS server takes: raise its"
                " max_payload, or publish where the value is"
            )
        await heeding(self.client.publish(subject, payload, reply, headers))

    def _expect(
        self, until: Callable[[Msg], bool], subjects: Collection[str], refuse: Refuse | None = None
    ) -> tuple[str, _Question]:
        """A new subject for an answer, and the object that collects the answer."""
        inbox = f"{self._inbox}.{next(self._numbers)}"
        question = self._questions[inbox] = _Question(until, subjects, refuse)
        return inbox, question

    async def _on_answer(self, message: Msg) -> None:
        question = self._questions.get(message.subject)
        if question is not None:
            question.take(message, self._server.timeout)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            # The library has dropped messages, so events of the subscriptions are missing.
            self.fail(f"this process was too slow: {error!r}")
        elif violation := _VIOLATION.search(str(error)):
            self._refuse(violation[1], str(error))
        else:
            logger.debug("NATS client: %r", error)

    def _refuse(self, told: str, detail: str) -> None:
        """Refuse the requests for the subject ``told``, which the library reports in lower case."""
        refused = [
            (question, subject)
            for question in self._questions.values()
            for subject in question.subjects
            if subject.lower() == told.lower()
        ]
        for question, subject in refused:
            question.refuse(subject, BrokerRefusal(f"NATS refused: {detail}"))
        if not refused:
            self.fail(detail)

    async def _on_closed(self) -> None:
        self.fail(repr(self.client.last_error))

    def fail(self, reason: str) -> None:
        """Fail the connection: raise in all tasks that wait for an answer, and call ``on_lost``."""
        if self._failure is not None:
            return
        self._failure = BackendUnavailable(f"NATS is lost: {reason}")
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(now)
        if self._on_lost is not None:
            self._on_lost(self._failure)


def _size_of(headers: dict[str, str] | None) -> int:
    """The bytes of a message's headers."""
    if headers is None:
        return 0
    return len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n") for name, value in headers.items())


async def heeding(work: Awaitable[T]) -> T:
    """Await ``work`` of the library, and raise a cancellation that the library has lost meanwhile."""
    task = asyncio.current_task()
    cancelling = task.cancelling() if task else 0
    result = await work
    if task is not None and task.cancelling() > cancelling:
        raise asyncio.CancelledError
    return result
