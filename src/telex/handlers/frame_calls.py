"""Compiles what a handler says of its frames, for connections that speak ``telex.v1``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from telex.calls import Slots
from telex.codecs import Reader, frame_writer
from telex.connection import Socket
from telex.defaults import MAX_CALLS, MAX_INVALID_MESSAGES, MAX_STREAMS
from telex.layers import nearest
from telex.once.calls import OnceCalls
from telex.plans import Build
from telex.protocol.calls import CallSession
from telex.protocol.failures import Failures
from telex.protocol.incoming import IncomingSession
from telex.protocol.jobs import BindTarget, CallPlan, CallTarget, FramePlan
from telex.telemetry.counts import RouteCounts, timed_handle

__all__ = ("speak_calls", "speak_incoming")


def speak_calls(
    build: Build,
    readers: tuple[Reader | None, Reader | None],
    bind: BindTarget,
    *,
    max_concurrency: int,
    max_invalid_messages: int,
    once: OnceCalls | None = None,
) -> None:
    """Let a handler speak telex.v1: ``readers`` read the JSON and the bytes of calls, ``bind`` finds what answers."""
    read_json, read_bytes = readers
    plan = CallPlan(
        **_common(build, max_invalid_messages),
        max_concurrency=max_concurrency,
        read_json=read_json,
        read_bytes=read_bytes,
        bind=bind if build.counts is None else _counting(bind, build.counts),
        once=once,
    )
    build.open_envelope = partial(CallSession, plan)


def _counting(bind: BindTarget, counts: RouteCounts) -> BindTarget:
    """``bind``, whose result is asked once for each message that the handler gets."""
    receive, measures = counts.receive, counts.app.measures_handling

    def bind_and_count(socket: Socket, slots: Slots) -> Callable[[Any], CallTarget]:
        target_of = bind(socket, slots)

        def count(data: Any) -> CallTarget:
            receive(data)
            target = target_of(data)
            if measures and not target.parts:
                return target._replace(handle=timed_handle(target.handle, counts, awaits=target.awaits))
            return target

        return count

    return bind_and_count


def speak_incoming(build: Build, on_unread: Callable[[bool], Exception | bool] | None = None) -> None:
    """Let a handler speak telex.v1 that takes calls and notifies itself, or none of them with ``on_unread``."""
    plan = FramePlan(**_common(build, MAX_INVALID_MESSAGES), on_unread=on_unread)
    build.open_envelope = partial(IncomingSession, plan)


def _common(build: Build, max_invalid_messages: int) -> dict[str, Any]:
    layer = build.layer
    return {
        "where": build.where,
        "contract": build.contract,
        "read_as": _cached(build.frame_reader),
        "write_value": frame_writer(Any, layer.type_encoders),
        "errors": build.exception_policy(),
        "failures": Failures(layer.errors, build.where, debug=build.debug),
        "close_at_first_invalid": nearest(layer.on_invalid_message, "reply") == "close",
        "max_invalid_messages": max_invalid_messages,
        "max_message_size": build.max_message_size,
        "max_calls": nearest(layer.max_calls, MAX_CALLS),
        "max_streams": nearest(layer.max_streams, MAX_STREAMS),
        "timeout": nearest(layer.call_timeout, None),
        "counts": build.counts,
    }


def _cached(
    read_as: Callable[[Any], tuple[Reader | None, Reader | None]],
) -> Callable[[Any], tuple[Reader | None, Reader | None]]:
    cached = lru_cache(64)(read_as)

    def read(kind: Any) -> tuple[Reader | None, Reader | None]:
        try:
            return cached(kind)
        except TypeError:  # an annotation that cannot be hashed
            return read_as(kind)

    return read
