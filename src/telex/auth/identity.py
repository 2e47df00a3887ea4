"""``Authenticate`` and ``Identity``: what the option ``authenticate`` takes, and what its provider returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, TypeVar

from telex.defaults import MAX_TOKEN
from telex.exceptions import ImproperlyConfiguredException, NotAuthorizedException
from telex.signatures import describe

__all__ = ("Authenticate", "Identity", "check_token", "wrong")

UserT = TypeVar("UserT")


@dataclass(frozen=True, slots=True)
class Identity(Generic[UserT]):
    """Who a client is, and for how long: ``Identity(user, expires_in=3600)``."""

    user: UserT
    """The value of ``socket.user``."""
    expires_in: float | None = None
    """Seconds until the token expires; then the connection is closed with 4401, unless the client sends a new token.
    With 0 or less it has expired already: the client is refused with 401. ``None``: it does not expire."""

    def __post_init__(self) -> None:
        seconds = self.expires_in
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and math.isfinite(seconds)):
            raise ValueError(f"Identity: expires_in is a number of seconds, or None, not {seconds!r}")


@dataclass(frozen=True, slots=True)
class Authenticate:
    """How clients log in: where their token comes from, and the provider that knows whose it is.

    ``provider`` takes ``token`` and, if it wants them, ``socket``, parameters of the handshake and dependencies. It
    returns :class:`Identity`, or raises to refuse. Its dependencies live as long as it runs. ``token: str | None`` is
    ``None`` for a client without a token; with ``token: str`` such a client is refused before the provider runs.

    The token is that of the first source that has one, in the order of the parameters.
    """

    provider: Callable[..., Any]
    _: KW_ONLY
    cookie: str | None = None
    """The name of a cookie."""
    bearer: bool = False
    """Whether the token may come in the header ``Authorization: Bearer …``."""
    query: str | None = None
    """The name of a query parameter. Addresses are logged, by proxies too: give out tickets that are valid once."""
    subprotocol: bool = False
    """Whether the token may come as an offered subprotocol ``bearer.…``, which is never selected."""
    in_band: bool = False
    """Accept first, and take the token from the first frame of telex.v1: instead of the other sources."""
    sync_to_thread: bool = False
    """Whether a sync provider runs in a thread."""
    timeout: float = 10.0
    """Seconds that the provider may take, with its dependencies; then the client is refused with 503."""

    def __post_init__(self) -> None:
        if not callable(self.provider):
            raise ImproperlyConfiguredException(
                f"Authenticate({self.provider!r}): the provider is a function: write def provider(token: str | None)"
            )
        for name in ("cookie", "query"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise wrong(self.provider, f"{name}= is a name, not {value!r}")
        for name in ("bearer", "subprotocol", "in_band", "sync_to_thread"):
            if not isinstance(getattr(self, name), bool):
                raise wrong(self.provider, f"{name}= is True or False, not {getattr(self, name)!r}")
        sources = [name for name in ("cookie", "bearer", "query", "subprotocol") if getattr(self, name)]
        if not sources and not self.in_band:
            raise wrong(
                self.provider,
                "no token can come: give cookie='…', bearer=True, query='…', subprotocol=True or in_band=True",
            )
        if sources and self.in_band:
            raise wrong(
                self.provider, f"in_band=True takes the token from a frame: remove {sources[0]}=, or in_band=True"
            )
        self._check_timeout()

    def _check_timeout(self) -> None:
        seconds = self.timeout
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (is_number and 0 < seconds < math.inf):
            raise wrong(self.provider, f"timeout= is a number of seconds above 0, not {seconds!r}")


def wrong(provider: Callable[..., Any], problem: str) -> ImproperlyConfiguredException:
    """An error about the option with this provider."""
    return ImproperlyConfiguredException(f"Authenticate({describe(provider)}): {problem}")


def check_token(token: str) -> str:
    """``token``, if it may be one: so that no provider gets one of any size, or text that is no ASCII.

    :raises NotAuthorizedException: it is too long, or has other characters than those of ASCII that are printed.
    """
    if len(token) > MAX_TOKEN:
        raise NotAuthorizedException(f"the token has more than {MAX_TOKEN} characters")
    if not (token.isascii() and token.isprintable()):
        raise NotAuthorizedException("the token has characters that no token has")
    return token
