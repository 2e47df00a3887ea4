"""``DTOData``: a validated message that is not converted to a model yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast, get_args, get_origin

import msgspec

from telex.dto.failures import Misfit, innermost, located
from telex.dto.nodes import WIRE_NODE, ModelNode

__all__ = ("DTOData", "holds_data")

T = TypeVar("T")


class DTOData(Generic[T]):
    """A validated message for a ``T``. The handler creates an instance from it, or updates one with it::

    @websocket_listener("/users", dto=DataclassDTO[Annotated[User, DTOConfig(exclude={"id"})]])
    async def create(data: DTOData[User]) -> User:
        return data.create_instance(id=next_id())
    """

    __slots__ = ("_node", "_wire")

    def __init__(self, node: ModelNode, wire: msgspec.Struct) -> None:
        """Created by the DTO; ``wire`` is the decoded message."""
        self._node = node
        self._wire = wire

    def create_instance(self, /, **values: Any) -> T:
        """A new ``T`` from the fields of the message and ``values``, which override them.

        ``address__street="..."`` is a value for the field ``street`` of the nested model ``address``.

        :raises ValidationException: a value is invalid for the model.
        """
        try:
            return cast("T", _create(self._node, self._wire, _nested(values, self._node)))
        except Misfit as misfit:
            raise located(misfit, self._wire) from misfit.error

    def update_instance(self, instance: T, /, **values: Any) -> T:
        """Set the fields of the message and ``values`` on ``instance``; returns it.

        A nested model that exists is updated in the same way.

        :raises ValidationException: a value is invalid for the model.
        """
        try:
            _update(self._node, self._wire, instance, _nested(values, self._node))
        except Misfit as misfit:
            raise located(misfit, self._wire) from misfit.error
        return instance

    def as_builtins(self) -> dict[str, Any]:
        """The fields of the message by field name; nested models are dictionaries."""
        return cast("dict[str, Any]", _plain(self._wire))

    def __repr__(self) -> str:
        return f"DTOData({self.as_builtins()!r})"


def holds_data(annotation: Any) -> bool:
    """Whether the annotation is or contains ``DTOData``."""
    return (get_origin(annotation) or annotation) is DTOData or any(map(holds_data, get_args(annotation)))


def _create(node: ModelNode, wire: msgspec.Struct | None, values: Mapping[str, Any]) -> Any:
    """A model from the fields of ``wire``, if it is given, and ``values``."""
    inner = {field.name: field.shape.node for field in node.fields}
    made = {name: value for name, value in values.items() if not isinstance(value, _Nested)}
    sent = {} if wire is None else node.sent(wire)
    try:
        for name, (_, raw) in sent.items():
            more, part = values.get(name), inner[name]
            if isinstance(more, _Nested) and part is not None and isinstance(raw, msgspec.Struct):
                made[name] = _create(part, raw, _nested(more, part))
            elif name not in made:
                made[name] = node.convert[name](raw)
        for name, more in values.items():
            part = inner.get(name)
            if isinstance(more, _Nested) and name not in made:
                made[name] = dict(more) if part is None else _create(part, None, _nested(more, part))
        return node.make(made)
    except ValueError as exc:
        raise innermost(wire, ValueError) or Misfit(wire, node, exc) from exc


def _update(node: ModelNode, wire: msgspec.Struct, instance: Any, values: Mapping[str, Any]) -> None:
    """Set the fields of ``wire`` and ``values`` on ``instance``."""
    try:
        for name, (field, raw) in node.sent(wire).items():
            inner, present, more = field.shape.node, node.dto.current(instance, name), values.get(name)
            if inner is not None and isinstance(raw, msgspec.Struct) and present is not None:
                _update(inner, raw, present, _nested(more, inner) if isinstance(more, _Nested) else {})
            elif name not in values:
                node.dto.assign(instance, name, node.convert[name](raw))
        for name, value in values.items():
            if not isinstance(value, _Nested):
                node.dto.assign(instance, name, value)
    except ValueError as exc:
        raise innermost(wire, ValueError) or Misfit(wire, node, exc) from exc


class _Nested(dict[str, Any]):
    """Values for a nested model, from arguments with two underscores."""


def _nested(values: Mapping[str, Any], node: ModelNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        head, _, rest = name.partition("__")
        if name in node.names or not head or not rest:
            found[name] = value
        else:
            found.setdefault(head, _Nested())[rest] = value
    return found


def _plain(value: Any) -> Any:
    node: ModelNode | None = getattr(type(value), WIRE_NODE, None)
    if node is not None:
        return {name: _plain(each) for name, (_, each) in node.sent(value).items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_plain(each) for each in value)
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    return value
