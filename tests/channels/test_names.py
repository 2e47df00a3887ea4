"""Names and positions are checked before they reach a broker."""

from __future__ import annotations

from typing import Any

import pytest

from telex.channels import Channels, Keep, Position
from telex.exceptions import ChannelsException, ImproperlyConfiguredException

WRONG = ["", "a\0b", "\x1fpresence", "x" * 256, "é" * 128, "\ud800", 3, None, b"bytes"]


@pytest.mark.parametrize("name", WRONG)
def test_declared_names_are_checked_when_the_hub_is_made(name: Any) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="is no channel: a name is text of 1 to 255 bytes"):
        Channels("memory://", channels=["fine", name])
    with pytest.raises(ImproperlyConfiguredException, match="is no channel"):
        Channels("memory://", arbitrary_channels_allowed=True, history={name: Keep(1)})


def test_one_name_is_no_list_of_names() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"write channels=\['news'\]"):
        Channels("memory://", channels="news")


@pytest.mark.parametrize("pattern", ["", "a", "a*b*", "a\0*", "\x1f*", "x" * 255 + "*", "\ud800*"])
def test_patterns_are_checked_before_they_leave(pattern: Any) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True)
    with pytest.raises(ChannelsException, match=r"is no pattern|is no channel"):
        hub.subscribe(pattern, pattern=True)


POSITIONS = [
    Position("e", -1),
    Position("e", 2**63),
    Position("e", 2**64),
    Position("a\0b", 1),
    Position("\ud800", 1),
    "e:-1",
    "e:99999999999999999999",
    "a\0b:1",
    "é:1",
    ":1",
    "1",
    17,
]


@pytest.mark.parametrize("since", POSITIONS)
def test_a_position_that_no_broker_gave_is_refused_at_once(since: Any) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True, history=Keep(5))
    with pytest.raises(ChannelsException, match=r"no position|not a position"):
        hub.subscribe("c", since=since)
