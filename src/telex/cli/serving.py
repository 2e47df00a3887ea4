"""``telex run``'s server: the only place that knows which one it is."""

from __future__ import annotations

from dataclasses import replace

from telex.cli.loading import LoadError, check_target, load_app
from telex.exceptions import ImproperlyConfiguredException
from telex.server import Settings, run

__all__ = ("serve",)


def serve(target: str, given: dict[str, object]) -> None:
    """Serve ``target`` with the settings that were given, else those of the environment, else the defaults.

    :raises LoadError: there is no such app, or a setting in the environment does not fit.
    """
    try:
        settings = Settings.read(given)
    except ImproperlyConfiguredException as exc:
        raise LoadError(str(exc)) from exc
    if settings.reload:
        check_target(target)  # no more than that: the reloader waits for an app that cannot be loaded to be mended
        run(target, settings)
        return
    app = load_app(target, factory=settings.factory)
    if settings.workers > 1:
        run(target, settings)
    else:
        run(app, replace(settings, factory=False))
