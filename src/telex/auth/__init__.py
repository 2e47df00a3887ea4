"""Who a client is: the option ``authenticate``, tokens that expire, and the frames that renew them."""

from __future__ import annotations

from telex.auth.identity import Authenticate, Identity

__all__ = ("Authenticate", "Identity")
