"""The tables of the reference of frames, from the code: frames, codes of errors, limits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

import msgspec

from telex.defaults import KIB, MAX_CALLS, MAX_STREAMS, MIB, PING_AFTER
from telex.handlers.multiplex import MAX_ROUTES
from telex.multiplex import frames as routes
from telex.multiplex import opening
from telex.multiplex.virtual import MAX_UNREAD, RESERVED
from telex.protocol import frames
from telex.protocol.errors import ERROR_CODES
from telex.protocol.jobs import PARTS_AHEAD
from telex.protocol.refusals import MAX_BODY
from telex.protocol.runner import MAX_QUEUED_BYTES, MORE_WITHIN

__all__ = ("SERVER_FRAMES", "client_frames", "codes", "limits", "route_frames", "server_frames")

SERVER_FRAMES: Final = {
    "hello": (
        "`session`, `ping`, `max`, `credit`, `bytes`, `features`, `contract`",
        "The first frame: what the client must know",
    ),
    "call": ("`id`, [`data`]", "A question to the client, which wants an answer"),
    "notify": ("[`data`]", "A message that wants no answer"),
    "reply": ("`id`, [`data`]", "The answer to a call; without `data` it says only that the handler has run"),
    "item": ("`id`, [`data`]", "One part of an answer"),
    "end": ("`id`", "The end of an answer in parts"),
    "error": (
        "`error`, and `id` or `about`",
        "A call failed; without `id` it is about a `notify` or the `connection`. `error` has `code`, `message`, and"
        " perhaps `path`, `retry_after`, `data`",
    ),
    "cancel": ("`id`", "The server does not wait for the answer to its call any more"),
    "credit": ("`n`", "The client may send `n` more notifies"),
    "ping": ("", "Nothing else was sent for a time; the client answers `pong`"),
    "pong": ("", "The answer to `ping`"),
    "goaway": (
        "`within`, `retry_after`",
        "The server stops: open another connection after `retry_after` seconds, and leave this one `within` seconds",
    ),
    "subscribed": ("[`position`], [`recovered`]", "A channel: where the stream begins"),
    "event": ("[`data`], [`position`]", "A channel: one event"),
    "gap": ("`reason`, [`position`]", "A channel: events are missing here"),
    "present": ("`members`", "A channel: who is there"),
    "joined": ("`member`", "A channel: one more"),
    "left": ("`member`", "A channel: one less"),
    "opened": ("the fields of `hello`, or `plain` and `credit`", "A route is open"),
    "denied": ("`status`, `code`, `error`, [`retry_after`]", "A route was refused, as a handshake is with `status`"),
    "closed": ("`code`, `reason`", "A route has ended, and is cleaned up"),
}
"""A test compares the types with those that the code sends."""


def client_frames() -> str:
    """What a client may send on each connection."""
    return _table(("type", "fields", "is"), map(_row, get_args(frames.ClientFrame)))


def route_frames() -> str:
    """What a client may send in addition on a socket of many routes."""
    return _table(("type", "fields", "is"), map(_row, get_args(routes.RouteFrame)))


def server_frames() -> str:
    """What the server sends."""
    return _table(("type", "fields", "is"), ((f"`{kind}`", *text) for kind, text in SERVER_FRAMES.items()))


def codes() -> str:
    """The codes of errors."""
    return _table(("code", "means"), ((f"`{code}`", text) for code, text in ERROR_CODES.items()))


def limits() -> str:
    """The numbers, as the code has them."""
    return _table(
        ("what", "limit"),
        (
            ("an id, and `c`", f"1 to {frames.MAX_ID:,}, each higher than the last"),
            ("`data`", "`max_message_size`, said as `max` in `hello`"),
            ("what a frame adds to `data`; the header of a binary message", _size(frames.MAX_FRAME_OVERHEAD)),
            ("`meta`", _size(frames.MAX_META)),
            ("`key`", "64 characters"),
            ("calls and notifies of a connection in work or waiting", f"`max_calls`, {MAX_CALLS}; `credit` in `hello`"),
            ("notifies beyond the credit", "as many again; one more closes with 1008"),
            ("bytes of the calls and notifies in work or waiting", f"{_size(MAX_QUEUED_BYTES)}; `bytes` in `hello`"),
            ("answers in parts that are open at once", f"`max_streams`, {MAX_STREAMS}"),
            ("parts that are sent before the first `more`", str(PARTS_AHEAD)),
            ("the wait for `more`", f"{MORE_WITHIN:g} s"),
            ("silence of the server before it sends `ping`", f"{PING_AFTER:g} s; `ping` in `hello`"),
            ("routes at once on a socket", f"`max_routes`, {MAX_ROUTES}"),
            ("path, and query, of `open`", f"{routes.MAX_TARGET:,} characters each"),
            ("routes that are opened", f"{opening.RATE} a second, after the first {opening.BURST}"),
            ("routes that run guards and dependencies at once", f"{opening.MAX_PENDING}; others wait"),
            ("the time in which a route must accept or refuse", f"{opening.OPEN_WITHIN:g} s"),
            (
                "denials in a row",
                f"{opening.MAX_DENIALS}; then routes open one at a time, {opening.DENIAL_PAUSE:g} s after a denial",
            ),
            ("messages that the server sends on a route", f"`credit` of `open`, {routes.CREDIT} without it"),
            ("bytes of all routes of a socket in work or waiting", f"{_size(MAX_QUEUED_BYTES)}; `bytes` in `hello`"),
            (
                "of these, bytes of one route",
                f"half; {_size(RESERVED)} are its own, whatever the others use",
            ),
            (
                "unread frames of a route",
                f"{MAX_UNREAD}; a call more is refused with `too_many_calls`, another frame closes the route with 1008",
            ),
            ("the body in `denied`", _size(MAX_BODY)),
        ),
    )


def _row(kind: type[msgspec.Struct]) -> tuple[str, str, str]:
    """One frame: fields in brackets may be left out."""
    fields = msgspec.structs.fields(kind)
    named = ", ".join(f"`{field.encode_name}`" if field.required else f"[`{field.encode_name}`]" for field in fields)
    means = " ".join((kind.__doc__ or "").split()).rstrip(".").replace("``", "`")
    return f"`{kind.__struct_config__.tag}`", named, means


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)).replace("| --- ", "|---")


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count % MIB == 0 else f"{count // KIB} KiB"
