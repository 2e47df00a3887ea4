"""What hubs and publishers share: the allowed channels, the history of each, and the encoding of values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias, cast

from telex.channels.events import Keep, Position
from telex.codecs import value_writer
from telex.exceptions import ChannelsException, ImproperlyConfiguredException, TelexException
from telex.types import TypeEncoders

__all__ = ("INTERNAL", "ChannelNames", "Since", "Target", "TopicName", "encoder", "starting_points")

INTERNAL: Final = "\x1f"
"""The first character of the hub's internal channels, which have no history. It is not allowed in user names."""

Target: TypeAlias = tuple[str, Keep | None]
"""A channel and its history."""


class TopicName(NamedTuple):
    """The name of a channel, or a pattern (a prefix followed by ``*``)."""

    name: str
    is_pattern: bool = False


Since: TypeAlias = Position | str | Mapping[str, Position | str]
"""A position, its text, or a mapping from channels to either."""

NAME_BYTES: Final = 255
"""The longest channel name, in bytes of UTF-8."""

_NAME: Final = re.compile(f"[^\0{INTERNAL}\ud800-\udfff]+")

CACHED_NAMES: Final = 4096


class ChannelNames:
    """The allowed channels and the history of each."""

    def __init__(
        self, declared: Iterable[str] | None, arbitrary: bool, history: Keep | Mapping[str, Keep] | None
    ) -> None:
        if isinstance(declared, str):
            raise ImproperlyConfiguredException(
                f"channels={declared!r:.80} is one name: write channels=[{declared!r:.80}]"
            )
        self.declared: frozenset[str] = frozenset(declared or ())
        for name in self.declared:
            _check_name(name, ImproperlyConfiguredException)
        self.arbitrary = arbitrary
        if not self.declared and not arbitrary:
            raise ImproperlyConfiguredException(
                "no channel is declared: write channels=[...], or arbitrary_channels_allowed=True"
            )
        _check_history(history)
        self._history = history
        # Called by each publish and subscription. The cache is bounded, because clients may choose names.
        self.keep_for: Callable[[str], Keep | None] = lru_cache(CACHED_NAMES)(self._find_keep)

    def listed(self, channels: str | Iterable[str]) -> list[str]:
        """The names without duplicates.

        :raises ChannelsException: one is not declared or not valid.
        """
        names = [channels] if isinstance(channels, str) else list(self._iterable(channels))
        for name in names:
            self._check(name)
        return list(dict.fromkeys(names))

    def targets(self, channels: str | Iterable[str]) -> list[Target]:
        """The names, each with its history."""
        return [(name, self.keep_for(name)) for name in self.listed(channels)]

    def topics(self, names: str | Iterable[str], *, pattern: bool) -> list[TopicName]:
        """The names, or patterns, as topics."""
        if not pattern:
            topics = [TopicName(name) for name in self.listed(names)]
        else:
            patterns = [names] if isinstance(names, str) else self._iterable(names)
            topics = [TopicName(name, True) for name in dict.fromkeys(map(_checked_pattern, patterns))]
        if not topics:
            raise ChannelsException("no channel is given to subscribe to")
        return topics

    def kept(self, name: str) -> Keep:
        """The history of a channel.

        :raises ChannelsException: it has none.
        """
        self._check(name)
        keep = self.keep_for(name)
        if keep is None:
            raise ChannelsException(f"nothing is kept of {name!r}: write Channels(..., history=Keep(...))")
        return keep

    def has(self, name: str) -> bool:
        """Whether ``name`` is valid and allowed."""
        try:
            self._check(name)
        except ChannelsException:
            return False
        return True

    def may_keep(self, prefix: str) -> bool:
        """Whether a channel whose name begins with ``prefix`` can have history."""
        if self._history is None or isinstance(self._history, Keep):
            return self._history is not None
        return any(
            name.startswith(prefix) or (name.endswith("*") and prefix.startswith(name[:-1])) for name in self._history
        )

    def require_history(self, name: str, option: str) -> None:
        """Raise if the channel ``name`` has no history, which ``option`` needs.

        :raises ImproperlyConfiguredException: it has none.
        """
        if self.keep_for(name) is None:
            raise ImproperlyConfiguredException(
                f"{option} needs a history of {name!r}, and nothing is kept: write Channels(..., history=Keep(...))"
            )

    def _iterable(self, channels: object) -> Iterable[str]:
        if isinstance(channels, (bytes, Mapping)) or not isinstance(channels, Iterable):
            raise ChannelsException(
                f"{channels!r:.80} names no channel: publish(channels, data) takes the channel first"
            )
        return cast("Iterable[str]", channels)

    def _check(self, name: object) -> None:
        _check_name(name)
        if not self.arbitrary and name not in self.declared:
            raise ChannelsException(
                f"unknown channel {name!r:.80}: declare it in channels=[...] or allow arbitrary ones; "
                "publish(channels, data) takes the channel first"
            )

    def _find_keep(self, name: str) -> Keep | None:
        if self._history is None or isinstance(self._history, Keep):
            return self._history
        for pattern, keep in self._history.items():
            if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
                return keep
        return None


def encoder(type_encoders: TypeEncoders | None) -> Callable[[object], bytes]:
    """A function that encodes a value: bytes stay unchanged, text becomes UTF-8, everything else JSON."""
    write = cast("Callable[[object], bytes]", value_writer(Any, "binary", type_encoders))

    def encode(data: object) -> bytes:
        return bytes(data) if isinstance(data, (bytearray, memoryview)) else write(data)

    return encode


def _check_name(name: object, error: type[TelexException] = ChannelsException) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name.encode()) > NAME_BYTES:
        raise error(f"{name!r:.80} is no channel: a name is text of 1 to {NAME_BYTES} bytes, without NUL and US")


def _checked_pattern(pattern: object) -> str:
    if not isinstance(pattern, str) or not pattern.endswith("*") or "*" in pattern[:-1]:
        raise ChannelsException(f"{pattern!r:.80} is no pattern: write a prefix followed by one '*'")
    _check_name(pattern)
    return pattern


def starting_points(topics: Sequence[TopicName], since: Since | None) -> dict[str, Position]:
    """The position after which each channel's replay begins.

    :raises ChannelsException: ``since`` is one position for several channels, is not a position, or has a channel that
        is not in ``topics``.
    """
    if since is None:
        return {}
    if not isinstance(since, Mapping) and len(topics) != 1:
        raise ChannelsException("several channels: give since= a position for each, as a mapping")
    given = since if isinstance(since, Mapping) else {topics[0].name: since}
    strangers = set(given) - {topic.name for topic in topics}
    if strangers:
        raise ChannelsException(f"since= has {', '.join(sorted(map(repr, strangers)))}, which is not subscribed to")
    return {name: _position(value) for name, value in given.items()}


def _position(value: object) -> Position:
    if isinstance(value, str):
        return Position.parse(value)
    if not isinstance(value, Position):
        raise ChannelsException(f"since={value!r:.80} is no position: give what channels.position() or an event has")
    return value.checked()


def _check_history(history: object) -> None:
    kept = history if isinstance(history, Mapping) else {} if history is None else {"*": history}
    for pattern, keep in kept.items():
        _check_name(pattern, ImproperlyConfiguredException)
        if not isinstance(keep, Keep):
            raise ImproperlyConfiguredException(
                f"history={history!r:.80} does not say what to keep: write history=Keep(50), or by name"
                " history={'room:*': Keep(50, seconds=3600)}"
            )
