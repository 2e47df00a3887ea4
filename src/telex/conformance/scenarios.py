"""The scenarios: what the scripted server and the client do, step by step, as data.

A pattern is a value that is compared with what came: an object must have the keys of the pattern (more are allowed), a
list must have as many items, and ``"*"`` is anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

__all__ = ("Scenario", "ScenarioStep", "load", "matches")

SCENARIOS: Final = Path(__file__).parent / "scenarios"


class TellStep(msgspec.Struct, tag="tell", tag_field="step", forbid_unknown_fields=True):
    """Tell the adapter what its client shall do, all at once: between two commands it connects to nothing."""

    do: list[dict[str, Any]]


class AcceptStep(msgspec.Struct, tag="accept", tag_field="step", forbid_unknown_fields=True):
    """The client opens a connection, which is accepted. Later steps are about it, unless they say ``on``."""

    query: dict[str, str] = {}
    """Parameters that it must have."""
    without: list[str] = []
    """Parameters that it must not have."""
    token: str | None = None
    """The token, in the subprotocol ``bearer.…``, the header ``Authorization``, or the query parameter ``ticket``."""
    after: float = 0.0
    """Seconds since the last connection ended, or the last step ``goaway`` was sent, before which it must not come."""
    subprotocol: str | None = "telex.v1"
    """What the server selects."""
    hello: dict[str, Any] | None = {}
    """Fields of ``hello`` beside the usual ones; ``null``: none is sent."""


class RefuseStep(msgspec.Struct, tag="refuse", tag_field="step", forbid_unknown_fields=True):
    """The client opens a connection, which is answered by HTTP."""

    status: int
    body: str = ""
    after: float = 0.0


class SendStep(msgspec.Struct, tag="send", tag_field="step", forbid_unknown_fields=True):
    """The server sends a frame; ``{"$bytes": "…"}`` as its data is base64 that travels in a binary message."""

    frame: dict[str, Any]
    on: int = 0
    """The number of the connection, from 1; 0 is the last."""


class SendRawStep(msgspec.Struct, tag="send_raw", tag_field="step", forbid_unknown_fields=True):
    """The server sends a text message as it is."""

    text: str
    on: int = 0


class ExpectStep(msgspec.Struct, tag="expect", tag_field="step", forbid_unknown_fields=True):
    """The next frame of the client, but for ``ping``, ``pong`` and ``credit`` that are not expected."""

    frame: dict[str, Any]
    on: int = 0
    without: list[str] = []
    """Keys that the frame must not have."""
    after: float = 0.0
    """Seconds since the connection was accepted, before which it must not come."""


class CloseStep(msgspec.Struct, tag="close", tag_field="step", forbid_unknown_fields=True):
    """The server closes a connection."""

    code: int
    reason: str = ""
    on: int = 0


class CutStep(msgspec.Struct, tag="cut", tag_field="step", forbid_unknown_fields=True):
    """A connection ends without a close frame."""

    on: int = 0


class LeftStep(msgspec.Struct, tag="left", tag_field="step", forbid_unknown_fields=True):
    """The client closes a connection."""

    on: int = 0


class ObserveStep(msgspec.Struct, tag="observe", tag_field="step", forbid_unknown_fields=True):
    """The next observation of the adapter; a status that is not asked for is skipped."""

    that: dict[str, Any]


class QuietStep(msgspec.Struct, tag="quiet", tag_field="step", forbid_unknown_fields=True):
    """For so many seconds no connection, frame or observation comes (but for ``ping`` and statuses)."""

    seconds: float


ScenarioStep: TypeAlias = (
    TellStep
    | AcceptStep
    | RefuseStep
    | SendStep
    | SendRawStep
    | ExpectStep
    | CloseStep
    | CutStep
    | LeftStep
    | ObserveStep
    | QuietStep
)


class Scenario(msgspec.Struct, forbid_unknown_fields=True):
    """One scenario."""

    name: str
    shows: str
    """What a client that passes does, in one sentence."""
    steps: list[ScenarioStep]


def load(folder: Path = SCENARIOS) -> list[Scenario]:
    """The scenarios of all files, in order.

    :raises ValueError: two have the same name.
    """
    found = [
        each
        for file in sorted(folder.glob("*.json"))
        for each in msgspec.json.decode(file.read_bytes(), type=list[Scenario])
    ]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two scenarios have one name: {sorted({each for each in names if names.count(each) > 1})}")
    return found


def matches(pattern: Any, value: Any) -> bool:
    """Whether ``value`` is as ``pattern`` says."""
    if pattern == "*":
        return True
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(key in value and matches(pattern[key], value[key]) for key in pattern)
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(value) == len(pattern)
            and all(matches(one, other) for one, other in zip(pattern, value, strict=True))
        )
    return type(pattern) is type(value) and bool(pattern == value)
