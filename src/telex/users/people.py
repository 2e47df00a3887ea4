"""``app.users``: sends to the connections of a user, closes them and counts them, on all nodes of the app."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from telex.channels.events import Event, kind_of
from telex.channels.hub import Channels
from telex.channels.names import encoder
from telex.clock import loop_time
from telex.connection import Socket
from telex.events import close_event
from telex.exceptions import ConcurrencyError, ImproperlyConfiguredException
from telex.registry import Registry
from telex.status_codes import WS_1013_TRY_AGAIN_LATER
from telex.types import TypeEncoders
from telex.users.index import Closed, name_of
from telex.users.nodes import Nodes
from telex.users.notices import BACKLOG, Notices

__all__ = ("Users",)

REVOKED: Final = 4403

logger: Final = logging.getLogger("telex.users")


class Users:
    """The users of an app, by the text that names them, or as ``socket.user`` gives them.

    The name of a user is its ``id``, ``identity``, ``username`` or ``email``, whichever there is first, as text. With
    :class:`telex.channels.Channels` as a plugin the methods reach all nodes of the app, otherwise this process.
    """

    def __init__(self, registry: Registry, hub: Channels | None, type_encoders: TypeEncoders) -> None:
        self._registry = registry
        self._index = registry.users
        self._encode: Callable[[object], bytes] = encoder(type_encoders)
        self._tasks: set[asyncio.Task[None]] = set()
        self._notices = Notices(self._start, self._close_slow)
        self._index.on_discard = self._notices.forget
        self._nodes: Nodes | None = None
        self._is_reported = False
        if hub is not None:
            self._nodes = Nodes(hub, self)
            self._index.on_add = self._nodes.follow

    async def notify(self, user: object, value: object) -> None:
        """Send ``value`` once to each socket of ``user``: text and bytes unchanged, other values as JSON.

        In telex.v1 it is the data of a ``notify``; on a shared socket it belongs to no route. Returns when the broker
        has it, and waits for no client: at most 100 notices wait for one socket, and one more closes it with 1013.

        :raises BackendUnavailable: the connection to the broker failed. Nothing was sent from this process; other
            nodes may or may not have got it.
        :raises ChannelsException: the channels do not run.
        """
        key = self._named(user)
        notice = Event("", self._encode(value), kind=kind_of(value))
        if self._nodes is not None:
            await self._nodes.notify(key, notice)
        else:
            self._report()
        self.notify_here(key, notice)

    async def close(self, user: object, code: int = REVOKED, reason: str = "revoked") -> None:
        """Close the connections of ``user``, and those whose handshake has begun; their handlers end.

        Returns when the broker has it and the connections of this process are closed, at most 5 seconds later. A caller
        that is cancelled, as the handler of such a connection is, does not stop it.

        :raises ValueError: ``code`` may not be sent.
        :raises BackendUnavailable: the connection to the broker failed: the connections of this process are closed,
            those of other nodes may or may not be. Call it again.
        :raises ChannelsException: the channels do not run; the connections of this process are closed.
        """
        event = close_event(code, reason)
        closed = Closed(secrets.token_hex(8), loop_time(), event["code"], event["reason"])
        await asyncio.shield(self._start(self._close_everywhere(self._named(user), closed)))

    async def count(self, user: object, *, within: float = 1.0) -> int:
        """The number of sockets of ``user``, on all nodes: each node is asked, and has ``within`` seconds to answer.

        A node that does not answer in time counts none. A shared socket counts once, whatever its routes.

        :raises BackendUnavailable: the connection to the broker failed.
        """
        key = self._named(user)
        if self._nodes is None:
            self._report()
            return self.count_here(key)
        return await self._nodes.count(key, within) + self.count_here(key)

    def connections(self, user: object) -> tuple[Socket, ...]:
        """The connections of ``user`` in this process, the oldest first: those that ``app.connections`` has."""
        return tuple(socket for socket in self._index.of(_given(user)) if socket in self._registry)

    @property
    def sent(self) -> int:
        """Notices that this process has given to a connection."""
        return self._notices.sent

    @property
    def dropped(self) -> int:
        """Notices that this process has not sent, because a client did not read or has left."""
        return self._notices.dropped

    # -- in this process

    def notify_here(self, key: str, notice: Event) -> None:
        """Send ``notice`` to the sockets of this process."""
        for socket in self._sockets(socket for socket in self._index.of(key) if socket.options.notices):
            self._notices.send(socket, notice)

    def close_here(self, key: str, closed: Closed) -> None:
        """Begin to close the connections of this process."""
        self._start(self._close_all(key, closed))

    def count_here(self, key: str) -> int:
        """The number of sockets of this process."""
        return sum(1 for _ in self._sockets(self._index.of(key)))

    async def aclose(self) -> None:
        """Wait for the tasks; called at the end of the app's lifespan."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @staticmethod
    def _sockets(connections: Iterable[Socket]) -> Iterator[Socket]:
        """The connections without the routes whose socket is among them; of other shared sockets the oldest route."""
        connections = tuple(connections)
        seen = {id(socket.envelope) for socket in connections if not socket.is_route and socket.envelope is not None}
        for socket in connections:
            route = socket.route
            if route is None:
                yield socket
            elif id(route.shared) not in seen:
                seen.add(id(route.shared))
                yield socket

    async def _close_everywhere(self, key: str, closed: Closed) -> None:
        closing = self._start(self._close_all(key, closed))
        try:
            if self._nodes is not None:
                await self._nodes.close(key, closed)
            else:
                self._report()
        except Exception as error:
            # The caller may be gone by now, as its connection is one of those that are closed.
            logger.warning("close(%r) has perhaps not reached other nodes: %s", key, error)
            raise
        finally:
            await asyncio.wait((closing,))

    async def _close_all(self, key: str, closed: Closed) -> None:
        connections = self._index.close(key, closed)
        shared = {id(socket.envelope) for socket in connections if not socket.is_route and socket.envelope is not None}
        ending = [each for each in connections if each.route is None or id(each.route.shared) not in shared]
        await asyncio.gather(*(self._registry.close(socket, closed.code, closed.reason) for socket in ending))

    def _close_slow(self, socket: Socket) -> None:
        reason = f"too slow: {BACKLOG} notices wait"
        self._start(self._registry.close(socket, WS_1013_TRY_AGAIN_LATER, reason))

    def _named(self, user: object) -> str:
        """The name of ``user``, for a call in the event loop of the connections.

        :raises ConcurrencyError: it is another one, as in a thread.
        """
        if self._index.loop not in {None, asyncio.get_running_loop()}:
            raise ConcurrencyError(
                "app.users is for the event loop that serves the app; from a thread write"
                " asyncio.run_coroutine_threadsafe(app.users.notify(...), loop)"
            )
        return _given(user)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _report(self) -> None:
        if not self._is_reported:
            self._is_reported = True
            logger.warning("app.users reaches this process only: the app has no Channels in plugins=[...]")


def _given(user: object) -> str:
    key = None
    with suppress(ImproperlyConfiguredException):
        key = name_of(user)
    if key is None:
        raise ValueError(f"{user!r:.80} names no user: give the id as text, or what socket.user is")
    return key
