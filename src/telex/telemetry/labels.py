"""The labels of messages: tags of unions and names of types, which the code has written and no client can add to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telex.annotations import is_typed_dict, model_class, split_annotated, union_members

__all__ = ("message_labels",)


def message_labels(annotations: Iterable[Any]) -> dict[type, str]:
    """The label of each class that a handler of these types gets: its tag, else its name.

    It is empty if one of the types, such as ``Any``, does not tell the class.
    """
    found = [label for annotation in annotations for label in _labels(annotation)]
    return {} if None in found else dict(filter(None, found))


def _labels(annotation: Any) -> Iterable[tuple[type, str] | None]:
    annotation, _ = split_annotated(annotation)
    members = union_members(annotation)
    if members:
        for member in members:
            yield from _labels(member)
        return
    kind = dict if is_typed_dict(annotation) else model_class(annotation)
    if isinstance(kind, type) and kind not in {object, Any}:  # Any is a class from Python 3.11 on
        tag = getattr(getattr(kind, "__struct_config__", None), "tag", None)
        yield kind, str(tag) if tag is not None else model_class(annotation).__name__
    else:
        yield None
