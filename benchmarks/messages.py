"""The messages of the typed scenario, so that every peer does the same work: decode, validate, look, reply typed."""

from __future__ import annotations

import msgspec

TEXT = b"The quick brown fox jumps over the lazy dog, twice."
LARGE = (TEXT + b" ") * 315 + b"."  # 16 KiB
READY = "ready"
"""What a subscriber of the fan-out is told first: from then on it misses nothing."""
JSON = b'{"id":12345,"player":"Ada Lovelace","x":12.5,"y":-3.25,"tags":["alpha","beta","gamma"],"urgent":true}'
TEXTS = tuple(
    msgspec.json.encode(
        [{"id": 977 * line + 31 * text, "user": f"u{(line * text) % 83}", "seen": line % 3 == 0} for line in range(48)]
    )
    for text in range(1, 17)
)
"""Like what is sent compressed: JSON of 2 KiB, each text different."""
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
