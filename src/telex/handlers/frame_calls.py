"""Compiles how a handler's calls are served on connections that speak ``telex.v1``."""

from __future__ import annotations

from typing import Any

from telex.codecs import Reader, frame_writer
from telex.defaults import MAX_CALLS, MAX_STREAMS
from telex.layers import nearest
from telex.plans import Build
from telex.protocol.failures import Failures
from telex.protocol.jobs import BindTarget, CallPlan

__all__ = ("compile_calls",)


def compile_calls(
    build: Build,
    readers: tuple[Reader | None, Reader | None],
    bind: BindTarget,
    *,
    max_concurrency: int,
    max_invalid_messages: int,
) -> CallPlan:
    """The plan of a handler's calls: how JSON and bytes are read, what handles them, and the options of ``build``."""
    layer = build.layer
    read_json, read_bytes = readers
    return CallPlan(
        where=build.where,
        read_json=read_json,
        read_bytes=read_bytes,
        bind=bind,
        write_value=frame_writer(Any, layer.type_encoders),
        errors=build.exception_policy(),
        failures=Failures(layer.errors, build.where, debug=build.debug),
        close_at_first_invalid=nearest(layer.on_invalid_message, "reply") == "close",
        max_invalid_messages=max_invalid_messages,
        max_message_size=build.max_message_size,
        max_concurrency=max_concurrency,
        max_calls=nearest(layer.max_calls, MAX_CALLS),
        max_streams=nearest(layer.max_streams, MAX_STREAMS),
        timeout=nearest(layer.call_timeout, None),
    )
