"""Detects the end of a client that is not read from: whether it has closed, and whether it takes data.

While reading is paused the event loop does not watch for the end of the stream, and where more waits than the kernel
buffers hold, the end has not even arrived. One timer for all such connections of an event loop probes and asks the
kernel.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from telex.server.timer_wheel import TimerWheel

__all__ = ("EndWatch", "descriptor", "unsent_bytes")

INTERVAL: Final = 1.0
"""Seconds between two looks. A connection that is held back for less is not looked at."""

_GONE: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Watched(Protocol):
    """A connection that is not read from."""

    def peer_descriptor(self) -> int:
        """The socket's file descriptor, or -1 where it is closed."""

    def probe(self) -> None:
        """Send something that needs no answer: a client that has left resets the connection then."""

    def on_peer_ended(self) -> None:
        """The client closed or reset its end."""


class EndWatch:
    """The connections of one event loop that are not read from."""

    _watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, EndWatch]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._new: set[Watched] = set()
        self._old: set[Watched] = set()
        self._scheduled = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> EndWatch:
        """The watch of that event loop."""
        watch = cls._watches.get(loop)
        if watch is None:
            watch = cls._watches[loop] = cls()  # which must not refer to the loop, or neither is ever freed
        return watch

    def add(self, connection: Watched) -> None:
        """Watch a connection from now on. Only inside the event loop."""
        self._new.add(connection)
        if not self._scheduled:
            self._schedule()

    def discard(self, connection: Watched) -> None:
        """Watch it no more."""
        self._new.discard(connection)
        self._old.discard(connection)

    def _schedule(self) -> None:
        self._scheduled = True
        TimerWheel.of(asyncio.get_running_loop()).call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._scheduled = False
        poll = select.poll()
        watched = {number: one for one in self._old if (number := one.peer_descriptor()) >= 0}
        for number in watched:
            poll.register(number, _GONE)
        for number, _ in poll.poll(0):
            self._old.discard(watched[number])
            watched[number].on_peer_ended()
        for one in self._old:
            one.probe()
        self._old |= self._new
        self._new = set()
        if self._old:
            self._schedule()


def descriptor(transport: asyncio.Transport) -> int:
    """The file descriptor of a transport's socket, or -1 where there is none any more."""
    sock = transport.get_extra_info("socket")
    return -1 if sock is None or transport.is_closing() else sock.fileno()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that wait in the write buffer, or in the kernel for the client's acknowledgement (Linux)."""
    number = descriptor(transport)
    waiting = transport.get_write_buffer_size()
    if number < 0:
        return waiting
    try:
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return waiting
    return waiting + int(in_kernel)
