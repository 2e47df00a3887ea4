"""The messages between the page and the chat. ``type`` distinguishes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=24, pattern=r"^\S(.*\S)?$")]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\S")]


# -- from the page


class Say(Struct, tag="say", frozen=True):
    """Say something to the room."""

    text: Text


class Type(Struct, tag="type", frozen=True):
    """The member is writing."""


# -- in the channel of a room


class Said(Struct, tag="said", frozen=True):
    """A member said something; ``number`` grows from message to message over all rooms."""

    number: int
    author: str
    text: str
    at: datetime


class Typing(Struct, tag="typing", frozen=True):
    """A member is writing."""

    name: str


# -- over HTTP


class Messages(Struct, frozen=True):
    """Stored messages of a room, oldest first; ``complete`` when there are none before them."""

    messages: list[Said]
    complete: bool


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
