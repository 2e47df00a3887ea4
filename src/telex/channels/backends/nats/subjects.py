"""Names of channels as subjects of NATS."""

from __future__ import annotations

import re
from typing import Final

from telex.channels.names import INTERNAL
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("Subjects",)

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_/-]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Subjects:
    """Maps channel names to subjects: ``:`` separates tokens; other special bytes become ``=`` and two hex digits."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ImproperlyConfiguredException(
                f"prefix={prefix!r} begins no subject of NATS: write letters, digits, - and _, with dots between words"
            )
        self._prefix = prefix
        self.stream: str = prefix.replace(".", "=")
        self.all_live: str = f"{prefix}.c.>"

    def live(self, channel: str) -> str:
        """The subject of a channel. The hub's internal channels have another one, so that no stream captures them."""
        return f"{self._prefix}.{'i' if channel.startswith(INTERNAL) else 'c'}.{_subject(channel)}"

    def stored(self, channel: str) -> str:
        """The subject to which the stream republishes a channel, for any epoch."""
        return f"{self._prefix}.h.*.{_subject(channel)}"

    def all_stored(self, epoch: str) -> str:
        """The subject to which a stream of ``epoch`` republishes all channels."""
        return f"{self._prefix}.h.{epoch}.>"

    def epoch(self, subject: str) -> str:
        """The epoch in a republished subject; empty for other subjects."""
        kind, _, rest = subject.removeprefix(f"{self._prefix}.").partition(".")
        return rest.partition(".")[0] if kind == "h" else ""

    def beneath(self, prefix: str) -> str:
        """The narrowest subject that matches all channels that begin with ``prefix``."""
        parent, separator, _ = prefix.rpartition(":")
        return f"{self._prefix}.c.{_subject(parent)}.>" if separator else self.all_live

    def channel(self, subject: str) -> str | None:
        """The channel of a subject; ``None`` if the subject is not one of Telex."""
        try:
            return ":".join(_text(token) for token in subject[len(self._prefix) + 3 :].split("."))
        except ValueError:
            return None


def _subject(channel: str) -> str:
    return ".".join(_token(part) for part in channel.split(":"))


def _token(part: str) -> str:
    """One token of a subject. A token cannot be empty, so an empty part becomes ``=``."""
    raw = (bytes([byte]) for byte in part.encode())
    return "".join(byte.decode() if _PLAIN.match(byte) else f"={byte[0]:02X}" for byte in raw) or "="


def _text(part: str) -> str:
    if part == "=":
        return ""
    return re.sub(rb"=(..)", lambda found: bytes.fromhex(found[1].decode()), part.encode()).decode()
