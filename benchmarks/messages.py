"""The messages of the typed scenario, so that every peer does the same work: decode, validate, look, reply typed."""

from __future__ import annotations

import msgspec

TEXT = "The quick brown fox jumps over the lazy dog, twice."
JSON = b'{"id":12345,"player":"Ada Lovelace","x":12.5,"y":-3.25,"tags":["alpha","beta","gamma"],"urgent":true}'
REPLY = b'{"id":12345,"player":"Ada Lovelace","distance":15.75,"tags":3}'


class Move(msgspec.Struct):
    """What the client sends."""

    id: int
    player: str
    x: float
    y: float
    tags: list[str]
    urgent: bool = False


class Moved(msgspec.Struct):
    """What the server replies."""

    id: int
    player: str
    distance: float
    tags: int


def moved(move: Move) -> Moved:
    """The work itself, as little as can be."""
    return Moved(move.id, move.player, abs(move.x) + abs(move.y), len(move.tags))
