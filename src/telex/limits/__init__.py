"""Limits of rates: of the messages of a connection, and of the handshakes of a client."""

from __future__ import annotations

from telex.limits.rates import Limit, OnExceed

__all__ = ("Limit", "OnExceed")
