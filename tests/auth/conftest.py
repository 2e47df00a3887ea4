"""The two servers of the fast lane, and an app whose clients log in with tokens of a table."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from telex import Authenticate, Identity, NotAuthorizedException, WebSocket
from tests.limits.conftest import kind

__all__ = ("USERS", "User", "bearer", "by_header", "kind", "name_of", "who")


@dataclasses.dataclass(frozen=True)
class User:
    id: str
    roles: frozenset[str] = frozenset()


USERS: Final[dict[str, User]] = {"ada-1": User("ada"), "ada-2": User("ada"), "bob-1": User("bob")}


async def who(token: str | None) -> Identity[User]:
    """Whose token this is: ``ada-1``, or with seconds ``ada-1/3600``."""
    name, _, seconds = (token or "").partition("/")
    if name not in USERS:
        raise NotAuthorizedException("log in first")
    return Identity(USERS[name], expires_in=float(seconds) if seconds else None)


def by_header(**options: Any) -> Authenticate:
    """Log in with a bearer token."""
    return Authenticate(who, bearer=True, **options)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def name_of(socket: WebSocket[User, Any, Any]) -> str:
    return socket.user.id
