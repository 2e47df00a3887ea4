"""The limits of handshakes and of open connections, by who connects.

What counts by :func:`telex.limits.client_ip` is checked first, before middleware and guards; other keys after the
guards, when the user is known. Without a limit of the app's own, each address of the internet has a generous one.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from telex.clock import Clock, loop_time
from telex.connection import Socket
from telex.exceptions import ImproperlyConfiguredException, ServiceUnavailableException, TooManyRequestsException
from telex.limits.keys import client_ip, is_global, is_named_by_proxy
from telex.limits.rates import Limit
from telex.limits.stores import MemoryStore, RedisStore
from telex.redis_server import StoreUnavailable

__all__ = ("CONNECTIONS_PER_ADDRESS", "HANDSHAKES_PER_ADDRESS", "ConnectLimits", "HandshakeChecks", "Key")

logger: Final = logging.getLogger("telex")

Key: TypeAlias = Callable[[Any], object]
Check: TypeAlias = Callable[[Socket], None]
StoredCheck: TypeAlias = Callable[[Socket], Awaitable[None]]


def public_address(socket: Socket) -> str | None:
    """:func:`client_ip` for the defaults: only addresses of which each is one client, as far as can be known."""
    address = client_ip(socket)
    return address if address is not None and is_global(address) and not is_named_by_proxy(socket) else None


HANDSHAKES_PER_ADDRESS: Final = Limit(50, per=1, burst=2_000, key=public_address)
"""The default where no ``connect_limit`` counts by ``client_ip``."""
CONNECTIONS_PER_ADDRESS: Final = 2_000
"""The default where no ``max_connections_per`` is given."""
LOG_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class HandshakeChecks:
    """The checks of one handler; each raises to refuse. ``first`` come before middleware, the others around guards."""

    first: tuple[Check, ...]
    before_guards: tuple[StoredCheck, ...]
    after_guards: tuple[StoredCheck, ...]


class ConnectLimits:
    """What one app has counted. Equal limits are one limit: give them a ``name`` where they are to count apart."""

    def __init__(self, clock: Clock = loop_time) -> None:
        self._clock = clock
        self._memory: dict[Limit, MemoryStore] = {}
        self._redis: dict[Limit, RedisStore] = {}
        self._open: dict[Key, dict[object, int]] = {}
        self._refusals: list[_Refusals] = []

    @property
    def refused(self) -> Mapping[str, int]:
        """Handshakes that were refused, by the option that refused them."""
        counts: Counter[str] = Counter()
        for refusals in self._refusals:
            counts[refusals.option] += refusals.count
        return counts

    @property
    def forgotten(self) -> int:
        """Active keys that limits in memory have forgotten because there were too many."""
        return sum(store.forgotten for store in self._memory.values())

    def compile(
        self, given: Sequence[Limit | None], most: tuple[Key, int] | bool | None, where: str
    ) -> HandshakeChecks:
        """The checks for the options of one handler.

        :param given: ``connect_limit``; ``None`` among them lifts the default.
        :param most: ``max_connections_per``; ``True`` is the default, ``None`` lifts it.
        """
        limits = [limit for limit in given if limit is not None]
        if None not in given and not any(limit.key is client_ip for limit in limits):
            limits.insert(0, HANDSHAKES_PER_ADDRESS)
        first: list[Check] = []
        before: list[StoredCheck] = []
        after: list[StoredCheck] = []
        for limit in limits:
            by_address = limit.key in _ADDRESSES
            if limit.store is not None:
                (before if by_address else after).append(self._stored_check(limit, where))
            elif by_address:
                first.append(self._memory_check(limit, where))
            else:
                after.append(_later(self._memory_check(limit, where)))
        if most is True:
            first.append(self._open_check(public_address, CONNECTIONS_PER_ADDRESS, where))
        elif most:
            check = self._open_check(*most, where)
            if most[0] in _ADDRESSES:
                first.append(check)
            else:
                after.append(_later(check))
        return HandshakeChecks(tuple(first), tuple(before), tuple(after))

    async def aclose(self) -> None:
        """The app stops: forget what was counted in memory, and close the connections to stores."""
        for counted in self._memory.values():
            counted.clear()
        for store in self._redis.values():
            await store.aclose()

    def _memory_check(self, limit: Limit, where: str) -> Check:
        store = self._memory.get(limit)
        if store is None:
            store = self._memory[limit] = MemoryStore(limit, self._clock)
        take, key_of, refusals = store.take, _key_of(limit), self._new_refusals("connect_limit", limit, where)

        def check(socket: Socket) -> None:
            key = key_of(socket)
            if key is not None:
                wait = take(key)
                if wait:
                    raise refusals.refuse(socket, limit.key, wait)

        return check

    def _stored_check(self, limit: Limit, where: str) -> StoredCheck:
        store = self._redis.get(limit)
        if store is None:
            store = self._redis[limit] = RedisStore(limit, where)
        take, key_of, refusals = store.take, _key_of(limit), self._new_refusals("connect_limit", limit, where)
        stays_open = limit.on_store_failure == "open"

        async def check(socket: Socket) -> None:
            key = key_of(socket)
            if key is None:
                return
            try:
                wait = await take(key)
            except StoreUnavailable:
                if stays_open:
                    return
                raise ServiceUnavailableException(headers={"Retry-After": "1"}) from None
            if wait:
                raise refusals.refuse(socket, limit.key, wait)

        return check

    def _open_check(self, key: Key, most: int, where: str) -> Check:
        counts = self._open.setdefault(key, {})
        key_of = _for_sockets(key) if key in _ADDRESSES else key
        refusals = self._new_refusals("max_connections_per", most, where)

        def check(socket: Socket) -> None:
            found = key_of(socket)
            if found is None:
                return
            count = counts.get(found, 0)
            if count >= most:
                raise refusals.refuse(socket, key, 1.0)
            counts[found] = count + 1
            socket.when_gone(lambda: _leave(counts, found))

        return check

    def _new_refusals(self, option: str, of: object, where: str) -> _Refusals:
        refusals = _Refusals(option, of, where, self._clock)
        self._refusals.append(refusals)
        return refusals


def _leave(counts: dict[object, int], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


_ADDRESSES: Final[frozenset[Any]] = frozenset({client_ip, public_address})


def _key_of(limit: Limit) -> Key:
    key = limit.key
    if key is None:  # pragma: no cover - the layer has checked it
        raise ImproperlyConfiguredException(f"connect_limit={limit} has no key")
    return _for_sockets(key) if key in _ADDRESSES else key


def _for_sockets(key: Key) -> Key:
    """``key`` for sockets alone: the routes of a shared socket come with its handshake."""

    def key_of(socket: Socket) -> object:
        return None if socket.is_route else key(socket)

    return key_of


def _later(check: Check) -> StoredCheck:
    async def check_later(socket: Socket) -> None:
        check(socket)

    return check_later


class _Refusals:
    """Refuses handshakes, and logs how many: at most one line a minute."""

    __slots__ = ("_clock", "_logs_at", "_warned", "_what", "_where", "count", "option")

    def __init__(self, option: str, of: object, where: str, clock: Clock) -> None:
        self.option: str = option
        self._what = f"{option} of {of}"
        self._where = where
        self._clock = clock
        self.count: int = 0
        self._logs_at = -math.inf
        self._warned = False

    def refuse(self, socket: Socket, key: Key | None, wait: float) -> TooManyRequestsException:
        """The exception that refuses one handshake."""
        self.count += 1
        now = self._clock()
        if now >= self._logs_at:
            self._logs_at = now + LOG_EVERY
            logger.warning("%s: %s: handshakes refused: %d", self._where, self._what, self.count)
        if not self._warned and key is client_ip and is_named_by_proxy(socket):
            self._warned = True
            logger.warning(
                "%s: %s counts the clients of a proxy as one: the server does not trust %s to name its clients."
                " Give the server its address, as in 'telex run --forwarded-allow-ips'",
                self._where,
                self._what,
                client_ip(socket),
            )
        return TooManyRequestsException(headers={"Retry-After": str(math.ceil(wait))})
