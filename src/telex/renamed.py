"""Litestar's names that Telex does not have. Importing one raises an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

__all__ = ("litestars_methods", "litestars_names")

INSTEAD: Final[Mapping[str, str]] = {
    "ChannelsPlugin": "`from telex import Channels`, and Channels(url, ...)",
    "MemoryChannelsBackend": 'Channels("memory://", ...), and history=Keep(n) for history=n',
    "RedisChannelsPubSubBackend": 'Channels("redis://host", ...)',
    "RedisChannelsStreamBackend": 'Channels("redis://host", history=Keep(n, seconds=60), ...)',
    "SkipValidation": "NamedDependency[...]: Telex never validates the values of providers",
    "AsyncPgChannelsBackend": 'Channels("postgresql://user@host/database", ...)',
    "PsycoPgChannelsBackend": 'Channels("postgresql://user@host/database", ...)',
}

INSTEAD_OF_METHODS: Final[Mapping[str, str]] = {
    "wait_published": "`await channels.publish(channel, data)`: the channel first",
    "start_subscription": "`async with channels.subscribe(channel) as events`",
}


def litestars_methods(hub: object, name: str) -> NoReturn:
    """The ``__getattr__`` of a hub, called for missing attributes."""
    if name in INSTEAD_OF_METHODS:
        raise AttributeError(f"{name} is Litestar's; in Telex write {INSTEAD_OF_METHODS[name]}", name=name, obj=hub)
    raise AttributeError(f"{type(hub).__name__!r} object has no attribute {name!r}", name=name, obj=hub)


def litestars_names(module: str) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of ``module``, called for missing names."""

    def refuse(name: str) -> NoReturn:
        if name in INSTEAD:
            raise ImportError(f"{name} is Litestar's; in Telex write {INSTEAD[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return refuse
