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
    """Names of channels as subjects: ``:`` separates tokens, and what a token may not have is ``=`` and two digits."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ImproperlyConfiguredException(
                f"prefix={prefix!r} begins no subject of NATS: write letters, digits, - and _, with dots between words"
            )
        self._prefix = prefix
        self.stream: str = prefix.replace(".", "=")
        self.all_live: str = f"{prefix}.c.>"

    def live(self, channel: str) -> str:
        """Where a channel is published. The hub's own channels stand apart, so that no stream captures them."""
        return f"{self._prefix}.{'i' if channel.startswith(INTERNAL) else 'c'}.{_subject(channel)}"

    def stored(self, channel: str) -> str:
        """Where the stream republishes a channel, whatever the stream's epoch is."""
        return f"{self._prefix}.h.*.{_subject(channel)}"

    def all_stored(self, epoch: str) -> str:
        """Where a stream of this epoch republishes all channels."""
        return f"{self._prefix}.h.{epoch}.>"

    def epoch(self, subject: str) -> str:
        """The epoch in a subject that the stream republishes to; empty if there is none."""
        kind, _, rest = subject.removeprefix(f"{self._prefix}.").partition(".")
        return rest.partition(".")[0] if kind == "h" else ""

    def beneath(self, prefix: str) -> str:
        """The narrowest subject with all channels that begin with ``prefix``."""
        parent, separator, _ = prefix.rpartition(":")
        return f"{self._prefix}.c.{_subject(parent)}.>" if separator else self.all_live

    def channel(self, subject: str) -> str | None:
        """The channel that a subject stands for; ``None`` if it is somebody else's."""
        try:
            return ":".join(_text(token) for token in subject[len(self._prefix) + 3 :].split("."))
        except ValueError:
            return None


def _subject(channel: str) -> str:
    return ".".join(_token(part) for part in channel.split(":"))


def _token(part: str) -> str:
    """A subject's token may not be empty: a single ``=`` stands for that."""
    raw = (bytes([byte]) for byte in part.encode())
    return "".join(byte.decode() if _PLAIN.match(byte) else f"={byte[0]:02X}" for byte in raw) or "="


def _text(part: str) -> str:
    if part == "=":
        return ""
    return re.sub(rb"=(..)", lambda found: bytes.fromhex(found[1].decode()), part.encode()).decode()
