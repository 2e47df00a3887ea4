"""What a key is good for: its scope, its least length, and the message that it came with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from telex.connection import Socket
from telex.di import Provide
from telex.limits.keys import user_key

__all__ = ("CURRENT", "CallId", "IdempotencyKey", "call_id", "contract_of", "fingerprint", "what_is_wrong")

LEAST_BITS: Final = 128
"""The least random bits, as text, of a key without a user: whoever knows it gets the answer."""
_HEX: Final = frozenset("0123456789abcdef-")

CURRENT: Final[ContextVar[str | None]] = ContextVar("telex.once", default=None)
"""The key of the call that runs."""


def _current_key() -> str | None:
    return CURRENT.get()


IdempotencyKey = Annotated[str | None, Provide(_current_key, scope="message")]
"""A parameter of a listener, or of a provider with ``scope="message"``: 64 characters that are those of no other call.

It is a hash of the call's key, route and user, for a column with a unique constraint. ``None`` for a call without a
key, and for a notify.
"""


class CallId(NamedTuple):
    """Which call: a key in its scope."""

    scope: str
    """A hash of route and user."""
    key: str
    is_of_user: bool
    """Whether the scope is that of a user, whose answers are counted; else it is for this key alone."""

    @property
    def digest(self) -> str:
        """What a handler gets as its :data:`IdempotencyKey`."""
        return hashlib.sha256(f"{self.scope}:{self.key}".encode()).hexdigest()


def call_id(socket: Socket, key: str, app: str, path: str) -> CallId:
    """The call of ``key`` on a route, which is its path with the values of its parameters, for its user."""
    owner = _user(socket)
    parts = (app, path, sorted((name, str(value)) for name, value in socket.path_params.items()), owner)
    scope = hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
    return CallId(scope, key, owner is not None)


def what_is_wrong(socket: Socket, key: str) -> str:
    """Why the client of ``socket`` cannot use ``key``; empty if it can."""
    if not key:
        return "a key has 1 to 64 characters"
    if _user(socket) is None and _bits(key) < LEAST_BITS:
        return (
            f"without a user a key has {LEAST_BITS} random bits, such as 32 hexadecimal digits or 22 characters of"
            " base64url"
        )
    return ""


def _user(socket: Socket) -> str | None:
    """Who calls, as text; ``None`` for nobody who is known."""
    found = user_key(socket.scope.get("user"))
    return None if found is None else f"{type(found).__name__}:{found}"


def _bits(key: str) -> float:
    """The most random bits that a text of this length and these characters can carry."""
    if key.isdecimal():
        return len(key) * math.log2(10)
    if _HEX.issuperset(key.lower()):
        return 4.0 * (len(key) - key.count("-"))
    return 6.0 * len(key)


def fingerprint(raw: bytes, contract: str, *, is_json: bool) -> str:
    """A hash of a message, equal for equal JSON values on all nodes of one version of the app."""
    if is_json:
        with suppress(msgspec.DecodeError):  # of a number that only the handler's own type can hold
            raw = msgspec.json.encode(msgspec.json.decode(raw), order="deterministic")
    return hashlib.blake2b(f"{contract}:{is_json}:".encode() + raw, digest_size=16).hexdigest()


def contract_of(receives: Iterable[Any], sends: Iterable[Any]) -> str:
    """A hash of the types of a handler: a record that was made under others is not given as an answer."""
    described = [[_described(each) for each in kinds] for kinds in (receives, sends)]
    return hashlib.blake2b(msgspec.json.encode(described, order="deterministic"), digest_size=8).hexdigest()


def _described(annotation: Any) -> Any:
    try:
        return msgspec.json.schema_components([annotation])
    except Exception:  # it is read or written by something else than msgspec
        return repr(annotation)
