"""Publish to the channels of an app from another process: a worker, a script or a Django view."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from telex.channels.backends import backend_from_url
from telex.channels.backends.base import ChannelsBackend
from telex.channels.events import DataKind, Keep, Position, kind_of
from telex.channels.names import ChannelNames, encoder
from telex.exceptions import ChannelsException, ImproperlyConfiguredException
from telex.types import TypeEncoders

__all__ = ("AsyncPublisher", "Publisher", "SyncPublisher", "publisher")

T = TypeVar("T")


class AsyncPublisher:
    """Publishes on the event loop that opened it."""

    def __init__(
        self, backend: ChannelsBackend, history: Keep | Mapping[str, Keep] | None, type_encoders: TypeEncoders | None
    ) -> None:
        self._backend = backend
        self._names = ChannelNames(None, True, history)
        self._encode = encoder(type_encoders)

    async def publish(
        self,
        channels: str | Iterable[str],
        data: object,
        *,
        transaction: object = None,
        kind: DataKind | None = None,
    ) -> Mapping[str, Position]:
        """Publish as :meth:`telex.channels.Channels.publish` does.

        :raises BackendUnavailable: the connection to the broker failed; the data may or may not have arrived.
        """
        targets, payload, kind = self._names.targets(channels), self._encode(data), kind or kind_of(data)
        if transaction is None:
            return await self._backend.publish(targets, payload, kind)
        await self._backend.publish_in(transaction, targets, payload, kind)
        return {}


class SyncPublisher:
    """Publishes from any thread. The connection runs on an event loop in a background thread."""

    def __init__(self, publisher: AsyncPublisher, backend: ChannelsBackend) -> None:
        self._publisher = publisher
        self._backend = backend
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="telex-publisher", daemon=True)

    def publish(
        self,
        channels: str | Iterable[str],
        data: object,
        *,
        transaction: object = None,
        kind: DataKind | None = None,
    ) -> Mapping[str, Position]:
        """Publish as :meth:`telex.channels.Channels.publish` does, and block until the broker has the data.

        :raises BackendUnavailable: the connection to the broker failed; the data may or may not have arrived.
        """
        return self._run(self._publisher.publish(channels, data, transaction=transaction, kind=kind))

    def open(self) -> None:
        """Start the thread and connect."""
        self._thread.start()
        try:
            self._run(self._backend.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect and stop the thread. Does nothing in a forked process, which has neither."""
        if self._loop.is_closed() or os.getpid() != self._process:
            return
        with suppress(Exception):
            self._run(self._backend.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[object, object, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise ChannelsException(
                "the synchronous publisher cannot be used on its own thread: use `async with publisher(url)`"
            )
        if os.getpid() != self._process:
            work.close()
            raise ChannelsException(
                "this publisher was opened before the process forked, and its connection stayed in the parent:"
                " open one in each process (in Celery: on worker_process_init)"
            )
        if self._loop.is_closed():
            work.close()
            raise ChannelsException("this publisher is closed: publish inside `with publisher(url) as ...`")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Publisher:
    """What :func:`publisher` returns. Use ``with`` in synchronous code and ``async with`` in coroutines."""

    def __init__(
        self,
        backend: ChannelsBackend | str,
        history: Keep | Mapping[str, Keep] | None,
        type_encoders: TypeEncoders | None,
    ) -> None:
        self._backend = backend_from_url(backend) if isinstance(backend, str) else backend
        if not self._backend.is_shared:
            raise ImproperlyConfiguredException(
                "memory:// lives inside one hub: publish with its Channels, or choose a broker that others can reach"
            )
        self._publisher = AsyncPublisher(self._backend, history, type_encoders)
        self._sync: SyncPublisher | None = None

    def __enter__(self) -> SyncPublisher:
        self._sync = SyncPublisher(self._publisher, self._backend)
        self._sync.open()
        return self._sync

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sync is not None:
            self._sync.close()

    async def __aenter__(self) -> AsyncPublisher:
        await self._backend.open()
        return self._publisher

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._backend.close()


def publisher(
    backend: ChannelsBackend | str,
    *,
    history: Keep | Mapping[str, Keep] | None = None,
    type_encoders: TypeEncoders | None = None,
) -> Publisher:
    """Publish to channels of other processes: ``with publisher("redis://...") as news: news.publish("room", data)``.

    ``history`` must equal the ``history`` of the :class:`Channels` that subscribe.

    :raises ImproperlyConfiguredException: the backend works within one process only.
    """
    return Publisher(backend, history, type_encoders)
