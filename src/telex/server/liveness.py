"""Detects, while reading from a client is paused, that the client closed or reset the connection.

While reading is paused the event loop does not report the end of the stream, and if the kernel's buffers are full, the
end has not arrived yet. One timer per event loop sends a probe on all such connections and polls their sockets.
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
"""Seconds between two checks. A connection that is paused for less than this is not checked."""

_GONE: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Watched(Protocol):
    """A connection whose reading is paused."""

    def peer_descriptor(self) -> int:
        """The socket's file descriptor, or -1 if it is closed."""

    def probe(self) -> None:
        """Send a frame that needs no answer: the host of a client that has left then resets the connection."""

    def on_peer_ended(self) -> None:
        """The client closed or reset its end."""


class EndWatch:
    """The connections of one event loop whose reading is paused."""

    _watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, EndWatch]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._new: set[Watched] = set()
        self._old: set[Watched] = set()
        self._scheduled = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> EndWatch:
        """The watch of ``loop``; made by the first call."""
        watch = cls._watches.get(loop)
        if watch is None:
            # The value must not refer to its weak key, the loop: neither would ever be freed.
            watch = cls._watches[loop] = cls()
        return watch

    def add(self, connection: Watched) -> None:
        """Start to watch ``connection``. Call it only inside the event loop."""
        self._new.add(connection)
        if not self._scheduled:
            self._schedule()

    def discard(self, connection: Watched) -> None:
        """Stop watching ``connection``."""
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
    """The file descriptor of a transport's socket, or -1 if it is closed or closing."""
    sock = transport.get_extra_info("socket")
    return -1 if sock is None or transport.is_closing() else sock.fileno()


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes in the write buffer, plus bytes in the kernel that the client has not acknowledged (Linux)."""
    number = descriptor(transport)
    waiting = transport.get_write_buffer_size()
    if number < 0:
        return waiting
    try:
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return waiting
    return waiting + int(in_kernel)
