"""The settings of Telex's own server, from code and the environment, and their conversion to uvicorn's."""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeAlias

from uvicorn.config import Config

from telex.exceptions import ImproperlyConfiguredException
from telex.health import Probes
from telex.paths import own_path
from telex.server.http import http_protocol
from telex.server.limits import Limits
from telex.server.logs import log_config
from telex.server.protocol import WebSocketProtocol
from telex.types import ASGIApp, Receive, Scope, Send

__all__ = ("App", "ServerConfig", "Settings")

_logger: Final = logging.getLogger("telex.server")

App: TypeAlias = ASGIApp | Callable[..., ASGIApp] | str
"""An ASGI app, an app factory, or ``"module:attribute"`` (required for ``workers`` and ``reload``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Limits):
    """The settings and limits of the server. Times are seconds.

    An environment variable can set each of them. Its name is ``TELEX_`` and the setting in upper case:
    ``TELEX_PORT=9000``, ``TELEX_PING_INTERVAL=none``, ``TELEX_ACCESS_LOG=off``.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    """Path of a Unix socket to listen on, instead of host and port."""
    fd: int | None = None
    """A listening socket that another process opened."""
    backlog: int = 2048
    workers: int = 1
    reload: bool = False
    """Restart when a Python file changes; for development."""
    reload_dirs: tuple[str, ...] = ()
    factory: bool = False
    """Whether the app is a function that returns the app."""
    loop: str = "auto"
    """``auto`` (uvloop if it is installed), ``asyncio`` or ``uvloop``."""
    http: Literal["auto", "httptools", "h11"] = "auto"
    root_path: str = ""
    health_path: str | None = None
    """The path that answers 200 while the process is alive."""
    ready_path: str | None = None
    """The path that answers 200 while the server takes new clients, and 503 while it or its app does not."""
    proxy_headers: bool = True
    """Whether to use ``X-Forwarded-For`` and ``X-Forwarded-Proto`` from the proxies in ``forwarded_allow_ips``."""
    forwarded_allow_ips: str | None = None
    """Addresses of trusted proxies, separated by commas; ``None`` means this machine."""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    ssl_ciphers: str | None = None
    server_header: bool = True
    date_header: bool = True
    timeout_keep_alive: int = 5
    """How long an idle HTTP connection stays open."""
    log_level: str = "info"
    log_format: Literal["text", "json", "none"] = "text"
    """``none``: the server does not configure logging; the program that embeds it does."""
    access_log: bool = True
    drain_delay: float = 0.0
    """The time between ``ready`` turning false and the end of accepting, in which load balancers react."""
    drain_batch: int = 100
    """WebSockets per batch in the drain; batches keep the clients from reconnecting all at once."""
    drain_interval: float = 0.1
    """The time between two batches."""
    drain_within: float = 10.0
    """The time that clients of telex.v1 have to leave after ``goaway``, before they are closed as others are."""
    drain_timeout: float = 30.0
    """The time from the start of the drain until busy connections are closed."""

    def __post_init__(self) -> None:
        self.probes()

    def probes(self) -> Mapping[str, ASGIApp]:
        """The apps of ``health_path`` and ``ready_path``.

        :raises ImproperlyConfiguredException: one of them is no path, or they are the same.
        """
        return Probes(self.health_path, self.ready_path).routes

    @classmethod
    def read(cls, given: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Settings:
        """The settings from ``given``, else from the environment, else the defaults.

        :raises ImproperlyConfiguredException: a setting does not exist, or an environment value is invalid.
        """
        known = {field.name: str(field.type) for field in fields(cls)}
        for name in given:
            if name not in known:
                raise ImproperlyConfiguredException(
                    f"There is no server setting {name!r}. The settings are: {', '.join(sorted(known))}."
                )
        values: dict[str, Any] = {}
        environment = os.environ if environ is None else environ
        for name, kind in known.items():
            text = environment.get(f"TELEX_{name.upper()}")
            if text is not None:
                values[name] = _parse(name, kind, text)
        _warn_of_unknown(environment, known)
        return cls(**{**values, **given})


def _warn_of_unknown(environment: Mapping[str, str], known: Mapping[str, str]) -> None:
    variables = [f"TELEX_{name.upper()}" for name in known]
    for name in sorted(environment):
        if name.startswith("TELEX_") and name not in variables:
            near = get_close_matches(name, variables, 1, 0.8)
            hint = f"did you mean {near[0]}?" if near else "no setting has that name"
            _logger.warning("the environment variable %s is ignored: %s", name, hint)


def _parse(name: str, kind: str, text: str) -> object:
    """Parse the value of an environment variable; ``kind`` is the setting's annotation as written above."""
    if kind.endswith("| None") and text.lower() in {"", "none"}:
        return None
    try:
        if kind.startswith("Literal"):
            return _parse_choice(ast.literal_eval(kind.removeprefix("Literal")), text)
        return _PARSERS[kind.removesuffix(" | None")](text)
    except ValueError as error:
        raise ImproperlyConfiguredException(
            f"The environment variable TELEX_{name.upper()} is {text!r}, but must be {kind}."
        ) from error


def _parse_choice(choices: list[str], text: str) -> str:
    if text not in choices:
        raise ValueError(text)
    return text


def _parse_bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


_BOOLEANS: Final = dict.fromkeys(("1", "true", "on", "yes"), True) | dict.fromkeys(("0", "false", "off", "no"), False)

_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "bool": _parse_bool,
    "int": int,
    "float": float,
    "str": str,
    "tuple[str, ...]": lambda text: tuple(part for part in text.split(os.pathsep) if part),
}


_THIS_MACHINE: Final = "127.0.0.1"


def _trusted_proxies(settings: Settings) -> str | None:
    given = settings.forwarded_allow_ips
    return f"{given},{_THIS_MACHINE}" if settings.uds and given not in {None, "*"} else given


class _UnixSocketPeer:
    """Gives the peer of a Unix socket this machine's address: uvicorn ignores proxy headers of a peer without one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not scope.get("client"):
            scope["client"] = (_THIS_MACHINE, 0)
        await self._app(scope, receive, send)


class _ProbesFirst:
    """Answers the probes before the app, whatever app it is."""

    def __init__(self, app: ASGIApp, probes: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        probe = self._probes.get(own_path(scope)) if scope["type"] == "http" else None
        await (probe or self._app)(scope, receive, send)


class ServerConfig(Config):
    """uvicorn's configuration, made from :class:`Settings`; the protocol reads its limits from ``limits``."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.limits: Settings = settings
        super().__init__(
            app,
            host=settings.host,
            port=settings.port,
            uds=settings.uds,
            fd=settings.fd,
            backlog=settings.backlog,
            factory=settings.factory,
            loop=settings.loop,
            http=http_protocol(settings.http),
            ws=WebSocketProtocol,
            reload=settings.reload,
            reload_dirs=list(settings.reload_dirs) or None,
            workers=settings.workers,
            root_path=settings.root_path,
            proxy_headers=settings.proxy_headers,
            forwarded_allow_ips=_trusted_proxies(settings),
            ssl_certfile=settings.ssl_certfile,
            ssl_keyfile=settings.ssl_keyfile,
            ssl_keyfile_password=settings.ssl_keyfile_password,
            ssl_ca_certs=settings.ssl_ca_certs,
            ssl_ciphers=settings.ssl_ciphers,
            server_header=settings.server_header,
            date_header=settings.date_header,
            headers=[],
            timeout_keep_alive=settings.timeout_keep_alive,
            limit_concurrency=settings.max_connections,
            log_config=log_config(settings.log_format),
            log_level=settings.log_level,
            access_log=settings.access_log,
            interface="asgi3",
        )

    def load(self) -> None:
        """Load the app, make uvicorn accept proxy headers from a Unix socket, and put the probes before the app."""
        super().load()
        if self.uds and self.proxy_headers:
            self.loaded_app: ASGIApp = _UnixSocketPeer(self.loaded_app)
        if probes := self.limits.probes():
            self.loaded_app = _ProbesFirst(self.loaded_app, probes)
