"""Limits of rates: of the messages of a connection, and of the handshakes of a client."""

from __future__ import annotations

from telex.limits.keys import client_ip, user
from telex.limits.rates import Limit, OnExceed, OnStoreFailure

__all__ = ("Limit", "OnExceed", "OnStoreFailure", "client_ip", "user")
