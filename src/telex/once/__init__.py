"""Calls that run once: a call of telex.v1 with a key that was used before gets the answer of the first."""

from __future__ import annotations

from telex.once.keys import IdempotencyKey
from telex.once.options import IfInterrupted, Once

__all__ = ("IdempotencyKey", "IfInterrupted", "Once")
