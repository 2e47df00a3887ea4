"""Finds the token of a handshake, and hides what is in its address."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote_plus

from telex.auth.identity import Authenticate, check_token
from telex.connection import Socket
from telex.exceptions import NotAuthorizedException
from telex.types import Scope

__all__ = ("HIDDEN", "FindToken", "compile_finder", "hide_tickets")

FindToken: TypeAlias = Callable[[Socket], str | None]
"""Returns the token of a handshake, if it has one.

:raises NotAuthorizedException: the token is none, or there are two where one is expected.
"""
_Source: TypeAlias = Callable[[Socket], Sequence[str]]

BEARER: Final = "bearer."
"""What an offered subprotocol that carries a token begins with."""
_SCHEME: Final = "bearer"
HIDDEN: Final = "telex.tickets"
"""The key in the scope of the tickets that :func:`hide_tickets` has found."""


def compile_finder(option: Authenticate) -> FindToken:
    """The function that finds the token where ``option`` says, in the order of its fields."""
    sources: list[_Source] = []
    if option.cookie is not None:
        sources.append(_cookie(option.cookie))
    if option.bearer:
        sources.append(_bearer)
    if option.query is not None:
        sources.append(_query(option.query))
    if option.subprotocol:
        sources.append(_subprotocol)

    def find(socket: Socket) -> str | None:
        found = [tokens for tokens in (source(socket) for source in sources) if tokens]
        if not found:
            return None
        if len(found[0]) > 1:
            raise NotAuthorizedException("there are several tokens in one place")
        return check_token(found[0][0])

    return find


def _cookie(name: str) -> _Source:
    def of_cookie(socket: Socket) -> Sequence[str]:
        return _given([socket.cookies.get(name, "")])

    return of_cookie


def _query(name: str) -> _Source:
    def of_query(socket: Socket) -> Sequence[str]:
        hidden = socket.scope.pop(HIDDEN, {})
        return _given(hidden.get(name, ()))

    return of_query


def hide_tickets(scope: Scope, names: Collection[str]) -> None:
    """Replace the values of these parameters in the query of ``scope``, before anything reads or logs it.

    Servers log the address that their own ``scope`` has when the handshake is answered.
    """
    found: dict[str, list[str]] = {}
    parts = scope["query_string"].decode("latin-1").split("&")
    for index, part in enumerate(parts):
        name, _, value = part.partition("=")
        if unquote_plus(name) in names:
            found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
            parts[index] = f"{name}=***"
    if found:
        scope["query_string"] = "&".join(parts).encode("latin-1")
        scope[HIDDEN] = found


def _bearer(socket: Socket) -> Sequence[str]:
    pairs = (value.strip().partition(" ") for value in socket.headers.getlist("authorization"))
    return _given([token.strip() for scheme, _, token in pairs if scheme.lower() == _SCHEME])


def _subprotocol(socket: Socket) -> Sequence[str]:
    """The token of a subprotocol. It is taken out of those that are offered, so that no handler can select it."""
    offered = socket.scope.get("subprotocols") or []
    socket.scope["subprotocols"] = [each for each in offered if not each.startswith(BEARER)]
    return _given([each.removeprefix(BEARER) for each in offered if each.startswith(BEARER)])


def _given(tokens: Sequence[str]) -> Sequence[str]:
    return [token for token in tokens if token]
