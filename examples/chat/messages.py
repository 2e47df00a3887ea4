"""The messages between the page and the chat. ``type`` distinguishes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=24, pattern=r"^\S(.*\S)?$")]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]


# -- from the page


class Say(Struct, tag="say", frozen=True):
    """Say something to the room."""

    text: Text


class Type(Struct, tag="type", frozen=True):
    """The member is writing."""


class Rename(Struct, tag="rename", frozen=True):
    """Take another name."""

    name: Name


class Recall(Struct, tag="recall", frozen=True):
    """Request the messages before the one of this number."""

    before: int


# -- from the chat


class Said(Struct, tag="said", frozen=True):
    """A member said something; ``number`` grows from message to message over all rooms."""

    number: int
    author: str
    text: str
    at: datetime


class Welcome(Struct, tag="welcome", frozen=True):
    """The first message to a new member: its name, the members, and the last messages."""

    you: str
    room: str
    members: list[str]
    history: list[Said]


class Recalled(Struct, tag="recalled", frozen=True):
    """Older messages; ``complete`` when there are none before them."""

    history: list[Said]
    complete: bool


class Typing(Struct, tag="typing", frozen=True):
    """A member is writing."""

    name: str


class Presence(Struct, tag="presence", frozen=True):
    """A member joined, left or changed its name (``was`` is the old one); ``members`` are the present ones."""

    what: Literal["came", "left", "renamed"]
    name: str
    members: list[str]
    was: str | None = None


class Refused(Struct, tag="refused", frozen=True):
    """A valid message could not be executed."""

    reason: str


News: TypeAlias = Said | Typing | Presence
"""An event that a room sends to all its members."""


# -- statistics


class RoomStatistics(Struct, frozen=True):
    """One room: its present members, and the number of all its messages."""

    room: str
    members: int
    messages: int


class Statistics(Struct, frozen=True):
    """All rooms, those with the most members first."""

    members: int
    messages: int
    rooms: list[RoomStatistics]
