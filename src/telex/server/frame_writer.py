"""The sending half of a connection.

Small messages use the fast path: picows' sender, which makes one system call from C. All other cases use the slow
path: a closing connection, replies gathered into one write, a full write buffer, large and compressed messages.
One integer selects the path: the fast path is used while ``_credit`` is above zero. Each fast send reduces it; at zero
``send`` returns false and the caller awaits one iteration of the event loop. Without this, a loop of sends to a fast
client would block all other connections.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from picows import WSListener

from telex.defaults import KIB
from telex.server.deflate import Deflater
from telex.server.frames import BINARY, PONG, TEXT, ConnectionClosed, frame_header
from telex.server.limits import Limits
from telex.server.parser import HEADROOM, SEND_AT_MOST, Sender, new_sender
from telex.telemetry.counts import process
from telex.types import DirectSend

__all__ = ("FrameWriter",)

_SENDER_AFTER: Final = 8
"""Messages after which a connection gets its own sender (2 KiB). Most connections send fewer and do not need one."""

_CREDIT: Final = 64
"""Small messages that are sent before the caller must yield to the event loop."""

_TURN_BYTES: Final = 256 * KIB
"""Bytes of larger messages that are sent before the caller must yield to the event loop."""

_SMALL: Final = SEND_AT_MOST // 4
"""Characters of a text that in UTF-8 always fits the limit of the sender."""

_CORKED_BYTES: Final = 64 * KIB
"""Bytes of gathered replies above which they are written before the cork is pulled."""

_JOIN_BELOW: Final = 64 * KIB
"""Payloads below this size are joined with their header: copying is cheaper than a second buffer."""
_MAY_WRITE_LINES: Final = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))
"""False where asyncio's ``writelines`` never pauses the protocol (CVE-2024-12254): there a frame is joined first."""


class FrameWriter(WSListener):
    """Sends messages, with flow control, while the connection is open. See :class:`telex.types.Transport`."""

    __slots__ = (
        "_ascii_size",
        "_cork",
        "_cork_size",
        "_credit",
        "_deflater",
        "_direct_size",
        "_ends_of_direct",
        "_limits",
        "_loop",
        "_open",
        "_pong_due",
        "_send_small",
        "_sender",
        "_sent_count",
        "_turn",
        "_waiters",
        "_wire",
        "_writable",
    )

    _wire: asyncio.Transport

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._limits = limits
        self._loop = loop
        self._open = False
        self._writable = True
        self._credit = 0
        self._turn = 0
        self._cork: list[bytes] | None = None
        self._cork_size = 0
        self._pong_due: bytes | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._sent_count = 0
        self._sender: Sender | None = None
        self._send_small: Callable[[int, str | bytes], None] | None = None
        self._ends_of_direct: list[Callable[[], None]] | None = None  # made when needed
        self._deflater: Deflater | None = None
        self._ascii_size = SEND_AT_MOST
        self._direct_size = _SMALL

    def _open_writer(self, wire: asyncio.Transport, deflater: Deflater | None) -> None:
        self._wire = wire
        self._deflater = deflater
        if deflater is not None:
            self._ascii_size = min(SEND_AT_MOST, self._limits.deflate_min_size - 1)
            self._direct_size = min(_SMALL, self._ascii_size)
        wire.set_write_buffer_limits(high=self._limits.write_high_water)
        self._open = True

    # Sending

    def send(self, data: str | bytes) -> bool:
        """Write one message, text or binary by its type; false if the caller should await :meth:`drain` next.

        :raises ConnectionClosed: the connection is closing or closed (an ``OSError``).
        """
        credit = self._credit
        if credit and len(data) <= self._direct_size:
            self._credit = credit - 1
            self._send_small(TEXT if data.__class__ is str else BINARY, data)  # type: ignore[misc]  # there is credit
            return self._credit > 0
        return self._send_slowly(data)

    def _send_slowly(self, data: str | bytes) -> bool:
        if not self._open or self._wire.is_closing():
            raise ConnectionClosed("The connection is closed: nothing can be sent.")
        if self._credit and len(data) <= self._ascii_size and (not isinstance(data, str) or data.isascii()):
            self._send_small(TEXT if isinstance(data, str) else BINARY, data)  # type: ignore[misc]  # there is credit
            return self._take_turn(len(data))
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, bytes(data))
        compressed = self._deflater is not None and len(payload) >= self._limits.deflate_min_size
        if compressed and self._deflater is not None:
            payload = self._deflater.deflate(payload)
        if self._credit and self._sender is not None and len(payload) < _JOIN_BELOW:
            buffer = bytearray(HEADROOM)
            buffer += payload
            self._sender.send_reuse_external_bytearray(opcode, buffer, HEADROOM, True, compressed)
        else:
            self._write_frame(frame_header(opcode, len(payload), compressed=compressed), payload)
        return self._take_turn(len(payload))

    def _take_turn(self, size: int) -> bool:
        """Whether the caller may send again without :meth:`drain`."""
        self._turn += size
        if not self._writable:
            self._drop_if_flooded()
            return False
        if self._cork is not None:
            return True
        if self._credit and self._turn < _TURN_BYTES:
            return True
        if self._sender is None and self._sent_count < _SENDER_AFTER:
            self._sent_count += 1
            return True
        self._renew_credit()
        return False

    def _renew_credit(self) -> None:
        self._turn = 0
        usual = self._open and self._writable and self._cork is None and not self._wire.is_closing()
        if usual and self._sender is None and self._sent_count >= _SENDER_AFTER:
            self._sender = new_sender(self._wire)
            self._send_small = self._sender.send
        self._credit = _CREDIT if usual and self._sender is not None else 0

    def _rest(self) -> None:
        """Free the sender of a connection that has been quiet."""
        if not self._ends_of_direct:
            self._sent_count = self._credit = 0
            self._sender = self._send_small = None

    def open_direct(self, on_end: Callable[[], None]) -> DirectSend | None:
        """The sender, if the fast path is available. See :class:`telex.types.Transport`."""
        if not self._credit:
            self._sent_count += 1
            self._renew_credit()
        if not self._credit or self._send_small is None:
            return None
        if self._ends_of_direct is None:
            self._ends_of_direct = []
        self._ends_of_direct.append(on_end)
        return DirectSend(self._send_small, self._ascii_size)

    def close_direct(self, on_end: Callable[[], None]) -> None:
        """Remove ``on_end``: it is not called any more."""
        if self._ends_of_direct is not None and on_end in self._ends_of_direct:
            self._ends_of_direct.remove(on_end)

    def _end_direct(self) -> None:
        """Notify the users of the direct sender: from now on they must use :meth:`send`."""
        ends, self._ends_of_direct = self._ends_of_direct, None
        for on_end in ends or ():
            on_end()

    @property
    def unsent(self) -> int:
        """See :class:`telex.types.Transport`."""
        return self._wire.get_write_buffer_size() if self._open else 0

    def _drop_if_flooded(self) -> None:
        if self._wire.get_write_buffer_size() > self._limits.max_write_buffer:
            process.aborted += 1
            # The application does not await drain() and the client does not read: only closing limits the memory.
            self._wire.abort()

    def _write_frame(self, header: bytes, payload: bytes) -> None:
        if self._cork is not None:
            self._cork.append(header + payload)
            self._cork_size += len(payload)
            if self._cork_size > _CORKED_BYTES:
                self._flush_cork()
        elif len(payload) < _JOIN_BELOW or not _MAY_WRITE_LINES:
            self._wire.write(header + payload)
        else:
            self._wire.writelines((header, payload))

    def _send_pong(self, payload: bytes) -> None:
        if self._wire.is_closing():
            return
        if self._writable:
            self._write_frame(frame_header(PONG, len(payload)), payload)
        else:
            # RFC 6455 section 5.5.3: a pong to the last of several pings suffices. A flood of pings costs one pong.
            self._pong_due = payload

    # Gathering replies into one write

    def _start_cork(self) -> None:
        if self._cork is None:
            self._cork = []
            self._credit = 0
            if self._ends_of_direct:
                self._end_direct()

    def _flush_cork(self) -> None:
        if self._cork:
            raw = b"".join(self._cork)
            self._cork.clear()
            self._cork_size = 0
            if not self._wire.is_closing():
                self._wire.write(raw)

    def _pull_cork(self) -> None:
        if self._cork is not None:
            self._flush_cork()
            self._cork = None
            self._renew_credit()

    # Flow control

    def pause_writing(self) -> None:
        """The transport's buffer is above its high mark."""
        self._writable = False
        self._credit = 0
        self._end_direct()

    def resume_writing(self) -> None:
        """The transport's buffer is below its low mark."""
        self._writable = True
        self._renew_credit()
        if self._pong_due is not None and self._open:
            payload, self._pong_due = self._pong_due, None
            self._send_pong(payload)
        self._wake_senders()

    async def drain(self) -> None:
        """Wait until the write buffer is below its low mark, and at least for one iteration of the event loop.

        :raises ConnectionClosed: the connection ended during the wait (an ``OSError``).
        """
        if self._open and not self._writable:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        else:
            await asyncio.sleep(0)
        if not self._open:
            raise ConnectionClosed("The connection ended while its last message was being sent.")

    def _wake_senders(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _close_writer(self, last: bytes | None) -> None:
        """Write the gathered replies and ``last``; every later send raises."""
        if not self._open:
            return
        self._pull_cork()
        self._open = False
        self._credit = 0
        self._end_direct()
        if last is not None and not self._wire.is_closing():
            self._wire.write(last)
        self._wake_senders()
