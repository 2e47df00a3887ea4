"""What travels between the page and the chat. ``type`` tells the messages apart."""

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
    """Ask for what was said before the message of this number."""

    before: int


# -- from the chat


class Said(Struct, tag="said", frozen=True):
    """A member said something; ``number`` grows from message to message over all rooms."""

    number: int
    author: str
    text: str
    at: datetime


class Welcome(Struct, tag="welcome", frozen=True):
    """The first message to a new member: the name it got, who is there, and the last messages."""

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
    """Somebody came, left or took another name (``was`` is the old one); ``members`` is who is there now."""

    what: Literal["came", "left", "renamed"]
    name: str
    members: list[str]
    was: str | None = None


class Refused(Struct, tag="refused", frozen=True):
    """A message was understood, but not done."""

    reason: str


News: TypeAlias = Said | Typing | Presence
"""What a room tells all its members."""


# -- statistics


class RoomStatistics(Struct, frozen=True):
    """One room: who is there now, and how much was ever said."""

    room: str
    members: int
    messages: int


class Statistics(Struct, frozen=True):
    """All rooms, the liveliest first."""

    members: int
    messages: int
    rooms: list[RoomStatistics]
