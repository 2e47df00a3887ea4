"""The two servers of the fast lane, and an app whose clients log in with tokens of a table."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import pytest

from telex import Authenticate, Identity, NotAuthorizedException, WebSocket
from tests.limits.conftest import kind

__all__ = ("USERS", "Skip", "User", "bearer", "by_header", "kind", "name_of", "skip", "who")


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


Skip: TypeAlias = Callable[[float], Awaitable[None]]
"""Moves the clock of the event loop forward by some seconds: less than a test waits for anything."""


@pytest.fixture
def skip(monkeypatch: pytest.MonkeyPatch) -> Skip:
    """Time passes at once: so a token expires when the test wants, however slow the machine is."""
    ahead = 0.0

    async def skip_by(seconds: float) -> None:
        nonlocal ahead
        if not ahead:
            loop = asyncio.get_running_loop()
            time = loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + ahead)
        ahead += seconds
        for _ in range(2):  # what is due now runs before anything that is read later
            await asyncio.sleep(0)

    return skip_by
