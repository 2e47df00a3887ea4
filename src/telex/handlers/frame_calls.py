"""Compiles how a handler's calls are served on connections that speak ``telex.v1``."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from telex.codecs import frame_writer
from telex.defaults import MAX_CALLS, MAX_STREAMS
from telex.handlers.receivers import Receivers
from telex.layers import nearest
from telex.plans import Build
from telex.protocol.failures import Failures
from telex.protocol.jobs import CallPlan

__all__ = ("compile_calls",)


def compile_calls(build: Build, receivers: Receivers, *, max_concurrency: int, max_invalid_messages: int) -> CallPlan:
    """The plan of a listener's calls, from its callbacks and the options of ``build``."""
    layer = build.layer
    read_json, read_bytes = build.frame_reader(reduce(or_, receivers.receives))
    return CallPlan(
        where=build.where,
        read_json=read_json,
        read_bytes=read_bytes,
        bind=receivers.bind_calls,
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
