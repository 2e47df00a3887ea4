"""Closes connections whose peer is gone or idle, and connections that reached their maximum lifetime."""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

from telex import status_codes
from telex.server.frames import CloseReason
from telex.server.limits import Limits
from telex.server.timer_wheel import Timer, TimerWheel
from telex.telemetry.counts import process

__all__ = ("Keepalive", "Peer")


class Peer(Protocol):
    """The part of a connection that the keep-alive uses."""

    def shows_life(self) -> bool:
        """Whether the client sent or acknowledged any bytes since the last call."""

    def is_only_held_back(self) -> bool:
        """Whether reading from the client is paused, and the client has acknowledged all sent bytes."""

    def send_ping(self, payload: bytes) -> None:
        """Send a ping."""

    def expire(self, close: CloseReason) -> None:
        """End the connection without waiting for the peer."""


class Keepalive:
    """The timers of one connection. Any byte counts as activity; a ping is sent after ``ping_interval`` without any.

    While reading is paused because the receive queue is full, the client's bytes are not seen. The connection then
    stays open as long as the client acknowledges the sent bytes, pings included, and expires when it does not.

    A frame only sets a flag, which is cheaper than a timestamp; a timer reads the flag later. An inactive connection is
    therefore detected up to one ``ping_interval`` (or a quarter of ``idle_timeout``) late.
    """

    __slots__ = (
        "_awaits_pong",
        "_idle",
        "_life",
        "_limits",
        "_loop",
        "_peer",
        "_ping",
        "_pinged_at",
        "_quiet_since",
        "_wheel",
    )

    def __init__(self, peer: Peer, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._peer = peer
        self._limits = limits
        self._loop = loop
        self._wheel = TimerWheel.of(loop)
        self._quiet_since = loop.time()
        self._pinged_at = 0.0
        self._awaits_pong = False
        self._ping: Timer | None = None
        self._idle: Timer | None = None
        self._life: Timer | None = None

    def start(self) -> None:
        """Start the timers that the limits enable."""
        limits = self._limits
        if limits.ping_interval:
            self._schedule_ping(limits.ping_interval)
        if limits.idle_timeout:
            self._idle = self._wheel.call_later(limits.idle_timeout / 4, self._close_if_idle)
        if limits.max_lifetime:
            self._life = self._wheel.call_later(limits.max_lifetime, self._close_for_age)

    def stop(self) -> None:
        """Cancel the timers."""
        for timer in (self._ping, self._idle, self._life):
            if timer is not None:
                timer.cancel()
        self._ping = self._idle = self._life = None

    def on_pong(self) -> None:
        """The peer answered: send the next ping one interval from now, not after the timeout."""
        if self._awaits_pong and self._ping is not None:
            process.observe_ping(self._loop.time() - self._pinged_at)
            self._ping.cancel()
            self._schedule_ping(self._limits.ping_interval or 0)

    def _schedule_ping(self, delay: float) -> None:
        self._awaits_pong = False
        self._ping = self._wheel.call_later(delay, self._ping_if_quiet)

    def _quiet_for(self) -> float:
        """Seconds since the last known activity of the peer."""
        now = self._loop.time()
        if self._peer.shows_life():
            self._quiet_since = now
        return now - self._quiet_since

    def _ping_if_quiet(self) -> None:
        interval = self._limits.ping_interval or 0
        quiet = self._quiet_for()
        if quiet < interval:
            self._schedule_ping(interval - quiet)
            return
        self._pinged_at = self._loop.time()
        # Random bytes: a counter would disclose the age of the connection.
        self._peer.send_ping(secrets.token_bytes(4))
        self._awaits_pong = True
        if self._limits.ping_timeout:
            self._ping = self._wheel.call_later(self._limits.ping_timeout, self._expire_if_quiet)
        else:
            self._schedule_ping(interval)

    def _expire_if_quiet(self) -> None:
        self._quiet_for()
        if self._quiet_since < self._pinged_at and not self._peer.is_only_held_back():
            self._peer.expire(CloseReason(status_codes.WS_1011_UNEXPECTED_ERROR, "keepalive ping timeout"))
        else:
            self._schedule_ping(self._limits.ping_interval or 0)

    def _close_for_age(self) -> None:
        self._peer.expire(CloseReason(status_codes.WS_1001_GOING_AWAY, "maximum lifetime reached"))

    def _close_if_idle(self) -> None:
        limit = self._limits.idle_timeout or 0
        if self._quiet_for() >= limit and not self._peer.is_only_held_back():
            self._peer.expire(CloseReason(status_codes.WS_1001_GOING_AWAY, "idle timeout"))
        else:
            self._idle = self._wheel.call_later(limit / 4, self._close_if_idle)
