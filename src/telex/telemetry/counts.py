"""What an app counts while it serves: plain integers, which are read when somebody asks for them.

An app counts only if a plugin has asked for it. Nothing here knows of Prometheus or OpenTelemetry, and nothing is kept
of a client: the numbers belong to routes, that is to path templates.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, Protocol, TypeAlias

from telex.exceptions import CallTimeout, WebSocketDisconnect
from telex.status_codes import (
    WS_1000_NORMAL_CLOSURE,
    WS_1001_GOING_AWAY,
    WS_1005_NO_STATUS_RECEIVED,
    WS_1006_ABNORMAL_CLOSURE,
    WS_1012_SERVICE_RESTART,
)

__all__ = ("AppCounts", "Handshakes", "ProcessCounts", "RouteCounts", "process", "timed", "timed_handle")

Observer: TypeAlias = Callable[[str, float, dict[str, str]], None]
"""Takes a measured duration: the name of its metric, seconds, and labels."""

LAGS: Final = 15
"""Measurements of the event loop's lag that are kept, one a second: the highest of them is shown."""


OTHER: Final = "other"

MOST_CODES: Final = 32
"""Close codes of one route that have a label of their own, besides those of RFC 6455."""

CODES_OF_THE_RFC: Final = frozenset(range(WS_1000_NORMAL_CLOSURE, 1016))


class RouteCounts:
    """What happened on one route, since the app was built."""

    __slots__ = (
        "_codes",
        "answers_ignored",
        "app",
        "by_type",
        "calls",
        "calls_ok",
        "ended",
        "failed",
        "frames_dropped",
        "ignored",
        "invalid",
        "limited",
        "opened",
        "received",
        "route",
        "sent",
        "types",
    )

    def __init__(self, app: AppCounts, route: str) -> None:
        self.app: AppCounts = app
        self.route: str = route
        self._codes: set[int] = set()
        """Codes that this side has closed with."""
        self.types: dict[type, str] = {}
        self.opened: int = 0
        """Connections that were accepted."""
        self.ended: int = 0
        self.received: int = 0
        """Messages that a handler got, where they can have one class only."""
        self.by_type: defaultdict[type, int] | None = defaultdict(int)
        """The same by their classes, where there are several: counting so takes twice as long."""
        self.failed: defaultdict[type, int] = defaultdict(int)
        """Those among them whose handler raised an exception."""
        self.sent: int = 0
        """Messages to clients, without the events of channels and the frames of telex.v1."""
        self.invalid: int = 0
        self.ignored: int = 0
        """Messages of the mode that the listener does not receive."""
        self.limited: Counter[tuple[str, str]] = Counter()
        """Messages beyond a limit, by limit and action."""
        self.calls_ok: int = 0
        """Calls of clients that were answered with a value."""
        self.calls: Counter[tuple[str, str]] = Counter()
        """All other calls, by direction and outcome."""
        self.answers_ignored: int = 0
        """Answers of clients to calls that had ended before."""
        self.frames_dropped: int = 0
        """Frames on a shared socket for routes that had ended."""

    def label(self, types: dict[type, str]) -> None:
        """Set the label of each class of messages; classes that are not here are ``other``. Before any connection."""
        self.types = types
        if len(types) == 1:
            self.by_type = None

    def receive(self, data: object) -> None:
        """A handler gets a message. The message loops do the same without a call."""
        if self.by_type is None:
            self.received += 1
        else:
            self.by_type[data.__class__] += 1

    @property
    def handled(self) -> Iterable[tuple[str, int, int]]:
        """The label of each class of messages, how many were handled, and how many of them failed."""
        types = self.types
        if self.by_type is None:
            yield next(iter(types.values())), self.received, sum(tuple(self.failed.values()))
            return
        for kind, received in tuple(self.by_type.items()):
            yield types.get(kind, OTHER), received, self.failed.get(kind, 0)

    def answered(self, outcome: str) -> None:
        """A call of a client has its final frame."""
        if outcome == "ok":
            self.calls_ok += 1
        else:
            self.calls["in", outcome] += 1

    @contextmanager
    def asking(self) -> Generator[None, None, None]:
        """Count one call of the server by its outcome."""
        outcome = "error"
        try:
            yield
            outcome = "ok"
        except CallTimeout:
            outcome = "timeout"
            raise
        except WebSocketDisconnect:
            outcome = "lost"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.calls["out", outcome] += 1

    def end(self, seconds: float, code: int, *, chosen_here: bool) -> None:
        """A connection has ended with ``code``, which may be one that the client has invented."""
        self.ended += 1
        labels = {"route": self.route, "close_code": self._code_label(code, chosen_here), "status": _status_of(code)}
        self.app.observe("telex.server.connection.duration", seconds, labels)

    def _code_label(self, code: int, chosen_here: bool) -> str:
        """A code that RFC 6455 or this side has chosen; else only its range: clients must not make labels."""
        if chosen_here and len(self._codes) < MOST_CODES:
            self._codes.add(code)
        is_known = code in self._codes or code in CODES_OF_THE_RFC
        return str(code) if is_known else f"{code // 1000}xxx" if 3000 <= code < 5000 else OTHER


def timed(bind: Callable[[Any, Any], Callable[[Any], Any]], counts: RouteCounts, *, awaits: bool) -> Any:
    """``bind``, whose handles measure how long they take, if the app wants that."""
    if not counts.app.measures_handling:
        return bind
    return lambda socket, slots: timed_handle(bind(socket, slots), counts, awaits=awaits)


def timed_handle(handle: Callable[..., Any], counts: RouteCounts, *, awaits: bool) -> Callable[..., Any]:
    """``handle``, which measures how long it takes."""

    def record(begun: float) -> None:
        counts.app.observe("telex.message.handle.duration", perf_counter() - begun, {"route": counts.route})

    def handle_now(*given: Any) -> Any:
        begun = perf_counter()
        try:
            return handle(*given)
        finally:
            record(begun)

    async def handle_later(*given: Any) -> Any:
        begun = perf_counter()
        try:
            return await handle(*given)
        finally:
            record(begun)

    return handle_later if awaits else handle_now


Handshakes: TypeAlias = Counter[tuple[str, str]]
"""Handshakes by outcome and HTTP status."""


def _status_of(code: int) -> str:
    if code == WS_1006_ABNORMAL_CLOSURE:
        return "lost"
    if code == WS_1012_SERVICE_RESTART:
        return "restart"
    normal = (WS_1000_NORMAL_CLOSURE, WS_1001_GOING_AWAY, WS_1005_NO_STATUS_RECEIVED)
    return "normal" if code in normal else "error"


class LimitCounts(Protocol):
    """What the limits of handshakes count."""

    @property
    def refused(self) -> Mapping[str, int]: ...

    @property
    def forgotten(self) -> int: ...


class AppCounts:
    """What one app counts."""

    def __init__(self) -> None:
        self.routes: list[RouteCounts] = []
        self.handshakes: Handshakes = Counter()
        self.observers: list[Observer] = []
        self.measures_handling: bool = False
        """Whether the duration of each message's handler is measured, which costs more than counting."""
        self.limits: LimitCounts | None = None
        self.lags: deque[float] = deque(maxlen=LAGS)

    def route(self, path: str) -> RouteCounts:
        """Counts for one more route."""
        counts = RouteCounts(self, path)
        self.routes.append(counts)
        return counts

    def observe(self, name: str, seconds: float, labels: dict[str, str]) -> None:
        """Tell the observers of a duration."""
        for observer in self.observers:
            observer(name, seconds, labels)


class ProcessCounts:
    """What Telex's server counts, for all apps of the process."""

    def __init__(self) -> None:
        self.aborted: int = 0
        """Connections that were dropped because their client did not read (``max_write_buffer``)."""
        self.observers: list[Observer] = []

    def observe_ping(self, seconds: float) -> None:
        """A client has answered a ping."""
        for observer in self.observers:
            observer("telex.ping.rtt", seconds, {})


process: Final = ProcessCounts()
