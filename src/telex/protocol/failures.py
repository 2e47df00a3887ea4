"""Turns exceptions of a handler into the errors that callers get."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from telex.exceptions import HTTPException, ImproperlyConfiguredException, ValidationException
from telex.protocol.errors import ERROR_CODES, checked_code, cut
from telex.protocol.refusals import code_of_status

__all__ = ("CallFailure", "Failures", "SettledError", "code_of")


class SettledError(Exception):
    """The error that a caller gets, as it goes into the frame; ``data`` is JSON, or bytes, which are left out."""

    def __init__(
        self,
        code: str,
        message: str = "",
        path: str = "",
        data: str | bytes | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path
        self.data = data
        self.retry_after = retry_after


class CallFailure(NamedTuple):
    """What a caller gets of an exception."""

    code: str
    message: str
    path: str = ""
    data: dict[str, object] | None = None


class Failures:
    """The exceptions that a handler declares with ``errors=[…]``, and the codes of all others."""

    def __init__(self, declared: Sequence[type[Exception]], where: str, *, debug: bool) -> None:
        self._codes = {kind: code_of(kind) for kind in declared}
        self._debug = debug
        for kind, code in self._codes.items():
            try:
                checked_code(code)
            except ValueError as wrong:
                raise ImproperlyConfiguredException(
                    f"{where}: errors=[{kind.__name__}]: {wrong}: set another as its class attribute 'code'"
                ) from None
            if code in ERROR_CODES:
                raise ImproperlyConfiguredException(
                    f"{where}: errors=[{kind.__name__}] has the code {code!r}, which is Telex's own: set another as the"
                    " class attribute 'code'"
                )

    def is_declared(self, exc: Exception) -> bool:
        """Whether callers may see ``exc``."""
        return any(kind in self._codes for kind in type(exc).__mro__)

    def of(self, exc: Exception) -> CallFailure:
        """The error for ``exc``; of exceptions that are not declared nothing leaks, as in a close."""
        code = next((self._codes[kind] for kind in type(exc).__mro__ if kind in self._codes), None)
        if code is not None:
            public = {name: value for name, value in vars(exc).items() if not name.startswith("_") and name != "code"}
            return CallFailure(code, cut(str(exc)), data=public or None)
        if isinstance(exc, ValidationException):
            return CallFailure("invalid_message", cut(exc.detail), cut(exc.path))
        if isinstance(exc, HTTPException):
            text = exc.detail if self._debug else exc.public_detail
            return CallFailure(code_of_status(exc.status_code), cut(text))
        return CallFailure("internal", cut(f"{type(exc).__name__}: {exc}") if self._debug else "internal error")


def code_of(kind: type[Exception]) -> str:
    """The code of a declared exception: its own attribute ``code``, or its name in snake_case."""
    own = kind.__dict__.get("code")
    if isinstance(own, str):
        return own
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()
