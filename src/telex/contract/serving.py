"""``AsyncAPI``: the plugin that names the document and serves it over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from telex.contract.document import DocumentInfo, to_json, to_yaml
from telex.exceptions import HTTPException, ImproperlyConfiguredException
from telex.signatures import describe, positional_count
from telex.types import ASGIApp, Receive, Scope, Send

__all__ = ("AsyncAPI",)


class Documented(Protocol):
    """The configuration of an app, as the plugin sees it."""

    asyncapi: AsyncAPI | None


class AsyncAPI:
    """A plugin: the app's AsyncAPI document has this title and version, and is served over HTTP.

    ``Telex([...], plugins=[AsyncAPI(title="Chat", version="1.4.0")])`` serves ``/asyncapi.json`` and
    ``/asyncapi.yaml``. Without the plugin, only an app with ``debug=True`` serves them.

    :param title: the title of the document.
    :param version: the version of the app's contract, as you count it.
    :param description: what the app is for; Markdown.
    :param path: where the document is served, without ``.json``. ``None`` serves it nowhere.
    :param guards: functions that run before the document is served: ``guard(connection)``, sync or async. A guard
        refuses by raising an HTTP exception, or by returning ``False``.
    """

    def __init__(
        self,
        *,
        title: str = "Telex",
        version: str = "0.0.0",
        description: str = "",
        path: str | None = "/asyncapi",
        guards: Sequence[Callable[..., Any]] = (),
    ) -> None:
        if path is not None and not path.startswith("/"):
            raise ImproperlyConfiguredException(f"AsyncAPI(path={path!r}): begin the path with '/'")
        for guard in guards:
            if not callable(guard) or positional_count(guard) != 1:
                raise ImproperlyConfiguredException(
                    f"AsyncAPI: guard {describe(guard) if callable(guard) else guard!r} of a document takes the"
                    " connection and nothing else: write def guard(connection)"
                )
        self.info: Final = DocumentInfo(title=title, version=version, description=description)
        self._guards = tuple(guards)
        base = None if path is None else path.rstrip("/")
        self._writers = {} if base is None else {f"{base}.json": _json_response, f"{base}.yaml": _yaml_response}

    def on_app_init(self, config: Documented) -> None:
        """Serve the document of the app."""
        config.asyncapi = self

    def http_routes(self, document: Callable[[], dict[str, Any]]) -> dict[str, ASGIApp]:
        """The ASGI apps that serve the document, by their paths."""
        return {path: self._serve_with(write, document) for path, write in self._writers.items()}

    def _serve_with(
        self, write: Callable[[dict[str, Any]], Response], document: Callable[[], dict[str, Any]]
    ) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            refusal = await self._refusal(scope)
            response = write(document()) if refusal is None else refusal
            await response(scope, receive, send)

        return serve

    async def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in {"GET", "HEAD"}:
            return _refusal(405, "the document is read with GET", {"allow": "GET, HEAD"})
        connection = HTTPConnection(scope)
        for guard in self._guards:
            try:
                verdict = guard(connection)
                if isinstance(verdict, Awaitable):
                    verdict = await verdict
            except HTTPException as exc:
                return _refusal(exc.status_code, exc.public_detail, exc.headers)
            if verdict is False:
                return _refusal(403, "Forbidden")
        return None


def _json_response(document: dict[str, Any]) -> Response:
    return Response(to_json(document), media_type="application/json", headers=_HEADERS)


def _yaml_response(document: dict[str, Any]) -> Response:
    try:
        return Response(to_yaml(document), media_type="application/yaml", headers=_HEADERS)
    except ModuleNotFoundError:
        return _refusal(501, "the server has no PyYAML: read the document as JSON, or pip install pyyaml")


def _refusal(status: int, detail: str, headers: Any = None) -> Response:
    return JSONResponse({"status_code": status, "detail": detail}, status, headers=dict(headers or {}))


_HEADERS: Final = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
