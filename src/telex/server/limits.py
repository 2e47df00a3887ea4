"""The limits of a connection, in one frozen dataclass."""

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
    """The limits of one connection. Sizes are bytes, times are seconds; ``None`` turns an optional limit off.

    The memory of one connection is at most the sum of: a parser buffer of twice ``max_message_size``; one message being
    assembled and one being delivered (``max_message_size`` each); ``max_queued_bytes`` and one read of queued messages;
    ``write_high_water`` plus one message of unsent data; and, with permessage-deflate, the two windows
    (see :mod:`telex.server.deflate`). An idle connection holds about 2 KiB of buffers.
    """

    max_message_size: int = MAX_MESSAGE_SIZE
    """The size of all fragments of a message, after decompression. A larger message closes the connection with 1009."""
    max_queue: int = 32
    """Messages that may wait for the application; at this number the server stops reading from the socket."""
    max_queued_bytes: int = 1 * MIB
    """The same limit in bytes; the limit that is reached first applies."""
    write_high_water: int = 64 * KIB
    """Unsent bytes above which ``send`` blocks. It continues below a quarter of this value."""
    max_write_buffer: int = 16 * MIB
    """Unsent bytes above which a connection is dropped, if the application does not wait for the client."""
    handshake_timeout: float = 10.0
    """The limit from the connection to the complete request, and again from the request to the application's answer."""
    close_timeout: float = 10.0
    """How long the peer may take to answer a close frame; then the socket is dropped."""
    ping_interval: float | None = 20.0
    """A ping is sent after this time without any data from the client."""
    ping_timeout: float | None = 20.0
    """How long the answer to a ping may take; then the connection closes with 1011."""
    idle_timeout: float | None = None
    """A connection that receives no data for this time, pongs included, closes with 1001."""
    max_lifetime: float | None = None
    """A connection closes with 1001 after this time."""
    max_connections: int | None = None
    """Connections of any kind, HTTP included; a WebSocket above the limit is refused with 503."""
    deflate: bool = True
    """Whether permessage-deflate (RFC 7692) is negotiated with clients that offer it."""
    deflate_min_size: int = 1 * KIB
    """Messages below this size are sent uncompressed: compressing them costs more than it saves."""
    deflate_window_bits: int = 12
    """The base-2 logarithm of the sliding windows, 9 to 15."""
    deflate_context_takeover: bool = True
    """Whether the server's window is kept between messages: better compression for ``2 ** (bits + 2)`` bytes more."""

    @property
    def max_fragments(self) -> int:
        """The limit of frames per message: tiny fragments take time but add little to the size."""
        return max(4096, self.max_message_size // 256)

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits in ``config`` (under Telex's own server), or limits made from uvicorn's ``ws_*`` settings."""
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
    """Make the limits; the cache shares one object between all connections of a server."""
    return Limits(
        max_message_size=max_message_size,
        max_queue=max_queue,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_connections=max_connections,
        deflate=deflate,
    )
