"""HTTP requests to an app in process: httpx with its ASGI transport, with a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from telex.exceptions import MissingDependencyException
from telex.testing.cookies import Cookies
from telex.testing.handshake import Headers
from telex.testing.tasks import bounded, name_of
from telex.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    import httpx

__all__ = ("HTTPCaller", "RequestOptions")


class RequestOptions(TypedDict, total=False):
    """The options of a request, named as in httpx. ``timeout`` is in seconds, for the whole exchange.

    Set cookies on the client: ``client.cookies["name"] = "value"``.
    """

    content: str | bytes
    data: Mapping[str, Any]
    files: Mapping[str, Any]
    json: Any
    params: Mapping[str, Any]
    headers: Headers
    auth: tuple[str, str]
    follow_redirects: bool
    timeout: float


class HTTPCaller:
    """Sends requests to one app; created by the first request, because httpx is an optional dependency."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        base_url: str,
        headers: Headers,
        cookies: Cookies,
        root_path: str,
        state: Mapping[str, object],
        raise_server_exceptions: bool,
    ) -> None:
        """:raises MissingDependencyException: httpx is not installed."""
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyException("httpx", "testing") from error

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await app(scope, receive, send)

        transport = httpx.ASGITransport(
            with_state,
            raise_app_exceptions=raise_server_exceptions,
            root_path=root_path,
            client=("testclient", 50000),
        )
        self._name = name_of(app)
        self._client = httpx.AsyncClient(
            transport=transport,
            base_url=base_url,
            headers=[*headers.items()] if isinstance(headers, Mapping) else [*headers],
            cookies=cookies.jar,
            timeout=None,  # noqa: S113 -- `request` has a timeout
        )

    async def request(self, method: str, url: str, options: RequestOptions, timeout: float) -> httpx.Response:
        """Send one request and return the response.

        :raises TimeoutError: the app did not finish the response within ``timeout`` seconds.
        """
        limit = options.pop("timeout", timeout)
        task = asyncio.create_task(self._client.request(method, url, **options))
        return await bounded(task, limit, f"{self._name} did not finish {method} {url}")

    async def aclose(self) -> None:
        """Close the httpx client."""
        await self._client.aclose()
