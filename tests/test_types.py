"""Small types: ``State``, ``Empty``, and the names that are re-exported."""

from __future__ import annotations

import pytest

from telex import State, handlers
from telex.handlers import websocket_handlers


def test_state_is_a_namespace_and_a_mapping() -> None:
    values = {"a": 1}
    state = State(values)
    state.b = 2
    state["c"] = 3
    assert (state.a, state["b"], "c" in state, "d" in state) == (1, 2, True, False)
    assert values == {"a": 1, "b": 2, "c": 3}
    del state.a
    del state["b"]
    assert dict(state) == state.dict() == {"c": 3}
    assert len(state) == 1
    assert repr(state) == "State({'c': 3})"
    with pytest.raises(AttributeError):
        _ = state.a
    with pytest.raises(KeyError):
        _ = state["a"]


def test_a_copy_of_a_state_is_its_own() -> None:
    class Mine(State):
        a: int

    state = Mine({"a": 1})
    copied = state.copy()
    copied.a = 2
    assert isinstance(copied, Mine)
    assert state.a == 1


def test_the_references_module_hands_the_names_on() -> None:
    for name in websocket_handlers.__all__:
        assert getattr(websocket_handlers, name) is getattr(handlers, name)
