"""The reader and the writer of a DTO, without a connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from telex.codecs import as_validation_error
from telex.dto.compiler import dto_reader, dto_writer
from telex.exceptions import ImproperlyConfiguredException, ValidationException

WHERE = "room (chat/app.py:12)"


def reader(dto: Any, annotation: Any = None) -> Callable[[Any], Any]:
    """A function that reads plain values, encoded as JSON, as the handler's argument."""
    read = dto_reader(dto, dto.models[0] if annotation is None else annotation, "text", (), WHERE)
    return lambda value: read(json.dumps(value))


def writer(dto: Any, annotation: Any = None) -> Callable[[Any], Any]:
    """A function that writes a handler's result and decodes the JSON to plain values."""
    write = dto_writer(dto, dto.models[0] if annotation is None else annotation, "text", {}, WHERE)
    return lambda value: json.loads(write(value))


def refused(read: Callable[[Any], Any], value: Any) -> ValidationException:
    """The validation error of a message."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, is asserted below
        read(value)
    error = as_validation_error(caught.value)
    assert error is not None, f"not a validation error: {caught.value!r}"
    return error


def misconfigured(build: Callable[[], object]) -> str:
    """The text of the error that is raised when the app is built."""
    with pytest.raises(ImproperlyConfiguredException) as caught:
        build()
    return caught.value.detail
