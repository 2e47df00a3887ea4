"""Serves an app with Telex's server, for ``telex run``."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from telex.application import Telex
from telex.channels.backends.memory import MemoryBackend
from telex.channels.hub import ChannelsProvider
from telex.cli.loading import LoadError, check_target, load_app
from telex.exceptions import ImproperlyConfiguredException
from telex.server import Settings, run

__all__ = ("serve",)

_logger: Final = logging.getLogger("telex")


def serve(target: str, given: dict[str, object]) -> None:
    """Serve ``target``. The settings in ``given`` override the environment and the defaults.

    :raises LoadError: the app cannot be loaded, or a setting in the environment is invalid.
    """
    try:
        settings = Settings.read(given)
    except ImproperlyConfiguredException as exc:
        raise LoadError(str(exc)) from exc
    if settings.reload:
        check_target(target)  # do not load the app here: if loading fails, the reloader waits for an edit
        run(target, settings)
        return
    app = load_app(target, factory=settings.factory)
    if settings.workers > 1:
        _warn_of_memory(app)
        run(target, settings)
    else:
        run(app, replace(settings, factory=False))


def _warn_of_memory(app: object) -> None:
    """Warn if several workers use the memory backend: it does not deliver to clients of another process."""
    if isinstance(app, Telex):
        for provider in app.dependencies.values():
            if isinstance(provider, ChannelsProvider) and isinstance(provider.hub.backend, MemoryBackend):
                _logger.warning(
                    "channels over memory:// do not reach other processes, but there are several workers: "
                    "use redis://, nats:// or postgresql://, or --workers 1"
                )
