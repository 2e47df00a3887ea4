"""Serves an app with Telex's server, for ``telex run``."""

from __future__ import annotations

from dataclasses import replace

from telex.cli.loading import LoadError, check_target, load_app
from telex.exceptions import ImproperlyConfiguredException
from telex.server import Settings, run

__all__ = ("serve",)


def serve(target: str, given: dict[str, object]) -> None:
    """Serve ``target``. The settings in ``given`` come before those of the environment and the defaults.

    :raises LoadError: there is no such app, or a setting in the environment is invalid.
    """
    try:
        settings = Settings.read(given)
    except ImproperlyConfiguredException as exc:
        raise LoadError(str(exc)) from exc
    if settings.reload:
        check_target(target)  # the app is not loaded: the reloader waits for an edit when that fails
        run(target, settings)
        return
    app = load_app(target, factory=settings.factory)
    if settings.workers > 1:
        run(target, settings)
    else:
        run(app, replace(settings, factory=False))
