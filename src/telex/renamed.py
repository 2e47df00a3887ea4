"""Litestar's names for what Telex calls otherwise: importing one says what to write instead. There are no aliases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

__all__ = ("litestars_names",)

INSTEAD: Final[Mapping[str, str]] = {
    "ChannelsPlugin": "`from telex import Channels`, and Channels(url, ...)",
    "MemoryChannelsBackend": 'Channels("memory://", ...), and history=Keep(n) for history=n',
    "RedisChannelsPubSubBackend": 'Channels("redis://host", ...)',
    "RedisChannelsStreamBackend": 'Channels("redis://host", history=Keep(n, seconds=60), ...)',
    "SkipValidation": "NamedDependency[...]: Telex never validates what a provider gives",
    "AsyncPgChannelsBackend": 'Channels("postgresql://user@host/database", ...)',
    "PsycoPgChannelsBackend": 'Channels("postgresql://user@host/database", ...)',
}


def litestars_names(module: str) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of ``module``, which is called for names that it has not."""

    def refuse(name: str) -> NoReturn:
        if name in INSTEAD:
            raise ImportError(f"{name} is Litestar's; in Telex write {INSTEAD[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return refuse
