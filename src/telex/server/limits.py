"""What the server allows a client, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from telex.defaults import KIB, MAX_MESSAGE_SIZE, MIB

if TYPE_CHECKING:
    from uvicorn.config import Config

__all__ = ("Limits",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one connection. Sizes are bytes, times are seconds; ``None`` turns an optional bound off.

    Memory that one connection may hold at most: a parser buffer of twice ``max_message_size``, a message under assembly
    and one being handed over (``max_message_size`` each), ``max_queued_bytes`` plus one read of unread messages,
    ``write_high_water`` plus one message of unsent ones, and, with permessage-deflate, the two windows
    (see :mod:`telex.server.deflate`). An idle connection holds about 2 KiB of buffers.
    """

    max_message_size: int = MAX_MESSAGE_SIZE
    """Counted over all fragments, and after inflating. A larger message closes with 1009."""
    max_queue: int = 32
    """Messages that wait for the application before the server stops reading from the socket."""
    max_queued_bytes: int = 1 * MIB
    """The same bound in bytes: whichever is reached first."""
    write_high_water: int = 64 * KIB
    """Unsent bytes at which ``send`` starts to wait. It goes on below a quarter of that."""
    max_write_buffer: int = 16 * MIB
    """Unsent bytes at which a connection whose sender does not wait is dropped."""
    handshake_timeout: float = 10.0
    """From the connection to the complete request, and again from there to the application's answer."""
    close_timeout: float = 10.0
    """How long the peer may take to answer a close frame before the socket is dropped."""
    ping_interval: float | None = 20.0
    """A ping is sent when nothing was heard for so long."""
    ping_timeout: float | None = 20.0
    """How long the answer to a ping may take; then the connection closes with 1011."""
    idle_timeout: float | None = None
    """A connection from which nothing at all comes for so long, pongs included, closes with 1001."""
    max_lifetime: float | None = None
    """A connection as old as this closes with 1001."""
    max_connections: int | None = None
    """Connections of any kind; one more WebSocket is refused with 503."""
    deflate: bool = True
    """Whether permessage-deflate (RFC 7692) is negotiated with clients that offer it."""
    deflate_min_size: int = 1 * KIB
    """Messages below this size are sent as they are: compressing them costs more than it saves."""
    deflate_window_bits: int = 12
    """The base-2 logarithm of the sliding windows, 9 to 15."""
    deflate_context_takeover: bool = True
    """Whether the server's window is kept between messages: better compression for ``2 ** (bits + 2)`` bytes more."""

    @property
    def max_fragments(self) -> int:
        """Frames of one message. Empty and tiny fragments cost time, not size, and so need a bound of their own."""
        return max(4096, self.max_message_size // 256)

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits that ``config`` carries (Telex's own server), or those in uvicorn's ``ws_*`` settings."""
        limits = getattr(config, "limits", None)
        if isinstance(limits, Limits):
            return limits
        return _of_uvicorn(
            config.ws_max_size,
            config.ws_max_queue,
            config.ws_ping_interval,
            config.ws_ping_timeout,
            config.limit_concurrency,
            config.ws_per_message_deflate,
        )


@lru_cache(maxsize=8)
def _of_uvicorn(
    max_message_size: int,
    max_queue: int,
    ping_interval: float | None,
    ping_timeout: float | None,
    max_connections: int | None,
    deflate: bool,
) -> Limits:
    """One object for all connections of a server."""
    return Limits(
        max_message_size=max_message_size,
        max_queue=max_queue,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_connections=max_connections,
        deflate=deflate,
    )
