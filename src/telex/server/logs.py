"""The logging configuration of the server: text lines, or one JSON object per line."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any, Final, Literal

from uvicorn.config import LOGGING_CONFIG

__all__ = ("JSONFormatter", "log_config")

_MAX_MESSAGE: Final = 8_000
"""The maximum characters of a message in a JSON line: text from a client must not fill the disk."""


class JSONFormatter(logging.Formatter):
    """One JSON object per record: ``time``, ``level``, ``logger``, ``message`` and, if there is one, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` as one line of JSON."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_MESSAGE],
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_config(style: Literal["text", "json", "none"]) -> dict[str, Any] | None:
    """A configuration for ``logging.config.dictConfig``: uvicorn's configuration, extended to Telex's logger."""
    if style == "none":
        return None
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["root"] = {"handlers": ["default"], "level": "WARNING"}  # records of the application's loggers
    config["loggers"]["telex"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    if style == "json":
        config["formatters"] = {name: {"()": JSONFormatter} for name in config["formatters"]}
    return config
