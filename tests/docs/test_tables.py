"""The tables of the reference say what the code says."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields

import click
import msgspec
import pytest

from scripts import docs_frames
from telex import Telex, exceptions, paths, slow_callbacks, status_codes
from telex.channels import Channels, Heartbeat, Keep, Statistics, names, presence, publish_queue
from telex.channels import events as channel_events
from telex.channels.delivery import encoding, topic
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.recovery import reader as feed
from telex.cli.commands import telex
from telex.defaults import (
    KIB,
    MAX_CALLS,
    MAX_INVALID_MESSAGES,
    MAX_MESSAGE_SIZE,
    MAX_QUEUED_MESSAGES,
    MAX_STREAMS,
    MAX_THREADS,
    MIB,
)
from telex.event_reader import GRACE
from telex.exceptions import HTTPException
from telex.handlers import channel_frames
from telex.handlers.listener import ListenerHandler
from telex.handlers.multiplex import MAX_ROUTES
from telex.layers import Layer
from telex.limits.handshakes import CONNECTIONS_PER_ADDRESS, HANDSHAKES_PER_ADDRESS
from telex.protocol.errors import ERROR_CODES
from telex.protocol.refusals import CODE_OF_STATUS
from telex.server import Limits, Settings
from telex.testing import AsyncTestClient
from tests.docs.pages import ROOT, table


def test_layered_options() -> None:
    rules = {field.name: field.metadata["rule"].replace("_", " ") for field in fields(Layer)}
    assert {row[0]: row[1] for row in table("reference/layers.md", "Options")} == rules


def test_limits_of_the_framework() -> None:
    limits = {
        "max_message_size": size(MAX_MESSAGE_SIZE),
        "max_queued_messages": str(MAX_QUEUED_MESSAGES),
        "max_concurrency": str(ListenerHandler.max_concurrency),
        "max_invalid_messages": str(ListenerHandler.max_invalid_messages),
        "on_invalid_message": "reply",
        "connect_limit": str(HANDSHAKES_PER_ADDRESS),
        "max_connections_per": str(CONNECTIONS_PER_ADDRESS),
        "message_limit": "none",
        "byte_limit": "none",
        "max_calls": str(MAX_CALLS),
        "max_streams": str(MAX_STREAMS),
        "max_routes": str(MAX_ROUTES),
    }
    assert {row[0]: row[2] for row in table("reference/limits.md", "The framework's limits")} == limits


def test_limits_of_the_server() -> None:
    limits = {field.name: worded(field.name, field.default) for field in fields(Limits)}
    assert {row[0]: row[1] for row in table("reference/limits.md", "The server's limits")} == limits


def test_settings_of_the_drain() -> None:
    drain = [field for field in fields(Settings) if field.name.startswith("drain_")]
    limits = {field.name: worded(field.name, field.default) for field in drain}
    assert {row[0]: row[1] for row in table("reference/limits.md", "The drain")} == limits


def test_statuses() -> None:
    def all_of(kind: type[HTTPException]) -> Iterator[type[HTTPException]]:
        yield kind
        for each in kind.__subclasses__():
            yield from all_of(each)

    own = [kind for kind in all_of(HTTPException) if kind.__module__ == exceptions.__name__]
    said = {kind.__name__: [str(kind.status_code), str(4000 + kind.status_code)] for kind in own}
    rows = table("reference/close-codes.md", "Exceptions with an HTTP status")
    assert {row[0]: row[1:3] for row in rows} == said


def test_convertors() -> None:
    assert {row[0] for row in table("reference/routing.md", "Kinds of path parameters")} == set(paths.CONVERTORS)


@pytest.mark.parametrize("name", ["run", "routes"])
def test_command_line(name: str) -> None:
    options = [option for option in telex.commands[name].params if isinstance(option, click.Option)]
    said = {row[0] for row in table("reference/command-line.md", f"telex {name}")}
    assert said == {" ".join([*option.opts, *option.secondary_opts]) for option in options}


def test_limits_of_channels() -> None:
    hub = inspect.signature(Channels).parameters
    limits = {
        "the name of a channel": f"1 to {names.NAME_BYTES} bytes of UTF-8, without NUL and US (31)",
        "what `Keep` keeps": f"from 1 event on, for at most {channel_events.YEARS / 365 / 86_400:g} years",
        "a value": "what the broker takes: 1 MiB with NATS unless configured otherwise, 512 MiB with Redis",
        "values that wait in `publish_nowait": f"{publish_queue.LIMIT:,}; one more raises `BackendUnavailable",
        "the wait for them when the app ends": (
            f"{publish_queue.DRAIN_SECONDS:g} s; what is left is logged, and counts as `failed"
        ),
        "events that wait for a reader": f"max_backlog`, {hub['subscriber_max_backlog'].default}",
        "events of a channel that wait while it catches up": (
            f"{topic.HELD_LIMIT:,}; more are fetched again, or show as a `Gap"
        ),
        "messages to a ready handler that do not fit, in a row": f"{MAX_INVALID_MESSAGES}; then it closes with 1007",
        "a page of history that a client calls for": (
            f"{channel_frames.LONGEST_PAGE} events, or {size(encoding.MAX_PAGE_BYTES)}; one event at least"
        ),
        "a member of presence, with its metadata": f"{size(presence.MEMBER_BYTES)} as JSON; more is an error of `track",
        "changes of presence that wait for a watcher": f"{presence.WATCH_BACKLOG:,}; then it ends with 1013",
        "the wait for a confirmed subscription": f"subscribe_timeout`, {hub['subscribe_timeout'].default:g} s",
    }
    assert dict(table("topics/channels.md", "Limits")) == limits
    with pytest.raises(exceptions.ImproperlyConfiguredException):
        Keep(0)
    with pytest.raises(exceptions.ImproperlyConfiguredException):
        DeliveryQueue(0)


def test_numbers_of_channels_that_pages_name() -> None:
    """Prose says: 15 s until a crashed node's members leave, 300 s for Keep(20), pauses of 50 ms to five seconds."""
    assert Heartbeat().lost_after == 15
    assert Keep(20).seconds == 300
    assert feed.BACKOFF_SECONDS == (0.05, 5.0)


def test_figures_of_channels() -> None:
    said = {name.strip(" `") for row in table("how-to/operate-channels.md", "Health") for name in row[0].split(",")}
    assert said == {field.name for field in msgspec.structs.fields(Statistics)}


def test_numbers_that_pages_name() -> None:
    """Prose says: 5 s for a wait in a test, 50 ms for a sync callable, 123 bytes for a reason, 4300 digits, 40 threads,
    half a second after a close from elsewhere."""
    assert AsyncTestClient(Telex()).timeout == 5.0
    assert slow_callbacks.BLOCKING_AFTER == 0.05
    assert status_codes.MAX_CLOSE_REASON_BYTES == 123
    assert sys.int_info.default_max_str_digits == 4300
    assert MAX_THREADS == 40
    assert GRACE == 0.5


def worded(name: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith(("_size", "_bytes", "_buffer", "_water")):
        assert isinstance(value, int)
        return size(value)
    if isinstance(value, float):
        return f"{value:g} s"
    return str(value)


def size(value: int) -> str:
    return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // KIB} KiB"


def test_frames_of_the_server() -> None:
    source = ROOT / "src" / "telex"
    files = [
        path for name in ("protocol", "multiplex", "handlers", "channels") for path in (source / name).rglob("*.py")
    ]
    sent = {kind for path in files for kind in re.findall(r'"type": ?"(\w+)"', path.read_text())}
    changes = {"joined", "left"}  # their type is a variable
    assert (sent | changes) - {"history"} == set(docs_frames.SERVER_FRAMES)


def test_every_code_of_an_error_is_in_the_table() -> None:
    source = ROOT / "src" / "telex"
    calls = re.compile(r'(?:BadFrame|error_frame|error_of|error_body|_send_error)\((?:[^()",]+, )?"(\w+)"')
    used = {code for path in source.rglob("*.py") for code in calls.findall(path.read_text("utf-8"))}
    assert {"bad_frame", "invalid_message", "too_many_calls", "rate_limited"} <= used
    assert used | set(CODE_OF_STATUS.values()) <= set(ERROR_CODES)
