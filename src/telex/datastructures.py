"""``State``, and starlette's data structures that connections use."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, Literal, Self, final

from starlette.datastructures import URL, Address, Headers, MultiDict, MutableHeaders, QueryParams
from starlette.datastructures import State as _State

__all__ = ("URL", "Address", "Empty", "EmptyType", "Headers", "MultiDict", "MutableHeaders", "QueryParams", "State")


class State(_State, MutableMapping[str, Any]):
    """A namespace with attribute and mapping access: ``state.db`` is ``state["db"]``.

    It is a view: writes change the dictionary that it was created from. To type the attributes, declare a subclass::

        class ChatState(State):
            members: set[str]
    """

    def copy(self) -> Self:
        """A new state with a shallow copy of the values."""
        return type(self)(dict(self._state))

    def dict(self) -> dict[str, Any]:
        """The values, copied into a plain dictionary."""
        return {**self._state}

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._state!r})"


@final
class EmptyType:
    """The type of ``Empty``: an option that was not given, where ``None`` is a valid value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Empty"

    def __bool__(self) -> Literal[False]:
        return False


Empty: Final = EmptyType()
