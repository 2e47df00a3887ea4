"""The cookies of a test client: HTTP requests and WebSocket handshakes share one jar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from email.message import Message as HeaderBlock
from http.client import HTTPResponse
from http.cookiejar import Cookie, CookieJar
from typing import cast
from urllib.request import Request

from telex.types import RawHeaders

__all__ = ("Cookies",)


class Cookies(MutableMapping[str, str]):
    """A mapping of cookie names to values, on a standard cookie jar with domains, paths and ages.

    Cookies that a test sets are sent to every host and path.
    """

    def __init__(self, cookies: Mapping[str, str] | None = None) -> None:
        self.jar: CookieJar = CookieJar()
        self.update(cookies or {})

    def header(self, url: str, more: Mapping[str, str] | None = None) -> str:
        """The ``Cookie`` header for an ``http`` or ``https`` URL, ``more`` replaces cookies of the same name."""
        request = _request(url)
        self.jar.add_cookie_header(request)
        more = more or {}
        kept = [pair for pair in (request.get_header("Cookie") or "").split("; ") if pair.partition("=")[0] not in more]
        return "; ".join(filter(None, [*kept, *(f"{name}={value}" for name, value in more.items())]))

    def learn(self, url: str, headers: RawHeaders) -> None:
        """Store the cookies in the ``Set-Cookie`` headers of a response from ``url``."""
        self.jar.extract_cookies(cast("HTTPResponse", _ResponseHeaders(headers)), _request(url))

    def __getitem__(self, name: str) -> str:
        return self._values()[name]

    def __setitem__(self, name: str, value: str) -> None:
        self.jar.set_cookie(_for_everywhere(name, value))

    def __delitem__(self, name: str) -> None:
        found = [cookie for cookie in self.jar if cookie.name == name]
        if not found:
            raise KeyError(name)
        for cookie in found:
            self.jar.clear(cookie.domain, cookie.path, cookie.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def _values(self) -> dict[str, str]:
        return {cookie.name: cookie.value or "" for cookie in self.jar}


class _ResponseHeaders:
    """The part of an HTTP response that a cookie jar reads."""

    def __init__(self, headers: RawHeaders) -> None:
        self._headers = HeaderBlock()
        for name, value in headers:
            self._headers[name.decode("latin-1")] = value.decode("latin-1")

    def info(self) -> HeaderBlock:
        return self._headers


def _request(url: str) -> Request:
    return Request(url)  # noqa: S310 -- an argument for the jar; no URL is opened


def _for_everywhere(name: str, value: str) -> Cookie:
    return Cookie(
        version=0,
        name=name,
        value=value,
        port=None,
        port_specified=False,
        domain="",
        domain_specified=False,
        domain_initial_dot=False,
        path="/",
        path_specified=True,
        secure=False,
        expires=None,
        discard=True,
        comment=None,
        comment_url=None,
        rest={},
    )
