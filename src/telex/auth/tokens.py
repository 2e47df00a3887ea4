"""Finds the token of a handshake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from telex.auth.identity import Authenticate, check_token
from telex.connection import Socket
from telex.exceptions import NotAuthorizedException

__all__ = ("FindToken", "compile_finder")

FindToken: TypeAlias = Callable[[Socket], str | None]
"""Returns the token of a handshake, if it has one.

:raises NotAuthorizedException: the token is none, or there are two where one is expected.
"""
_Source: TypeAlias = Callable[[Socket], Sequence[str]]

BEARER: Final = "bearer."
"""What an offered subprotocol that carries a token begins with."""
_SCHEME: Final = "bearer"


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
        return _given(socket.query_params.getlist(name))

    return of_query


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
