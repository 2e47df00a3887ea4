"""Loads the app at ``module:attribute``. The errors list the apps that the module has."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType

from telex.application import Telex
from telex.exceptions import ImproperlyConfiguredException
from telex.signatures import describe, positional_count
from telex.types import ASGIApp

__all__ = ("LoadError", "check_target", "load_app", "load_telex", "make_importable")


class LoadError(Exception):
    """The app cannot be loaded; the text names the cause and what to write instead."""


def make_importable(folder: str) -> None:
    """Put ``folder`` first on the path that modules are imported from.

    :raises LoadError: ``folder`` is not a directory.
    """
    path = Path(folder).resolve()
    if not path.is_dir():
        raise LoadError(f"--app-dir {folder} is not a directory")
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))


def check_target(target: str) -> tuple[str, str]:
    """Split ``target`` into module and attribute.

    :raises LoadError: ``target`` is not of the form ``module:attribute``.
    """
    module, colon, attribute = target.partition(":")
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise LoadError(f"{target!r} names a file: write the module, {dotted}:{attribute or 'app'}")
    if not module or not colon or not attribute:
        raise LoadError(f"{target!r} does not name an app: write module:attribute, such as {module or 'main'}:app")
    return module, attribute


def load_app(target: str, *, factory: bool = False) -> ASGIApp:
    """Load the ASGI app at ``target``; with ``factory``, call the function at ``target`` and return its app.

    :raises LoadError: there is no app at ``target``, or its module or configuration has an error. Other exceptions of
        the factory propagate.
    """
    name, attribute = check_target(target)
    module = _import(name)
    found: object = module
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise LoadError(f"{name} has no attribute {attribute!r}: {_apps_of(module)}") from None
    if factory:
        found = _make(found, target)
    return _checked(found, target, module)


def load_telex(target: str, *, factory: bool = False) -> Telex:
    """As :func:`load_app`, for commands that need a ``Telex``.

    :raises LoadError: as :func:`load_app`, or the app is not a ``Telex``.
    """
    app = load_app(target, factory=factory)
    if not isinstance(app, Telex):
        name = check_target(target)[0]
        raise LoadError(f"{target} is {_what(app)}, not a Telex: {_apps_of(sys.modules[name])}")
    return app


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        where = f"in {Path.cwd()} or on the import path"
        raise LoadError(f"there is no module {exc.name!r} {where}: {_modules_here()}") from None
    except ImproperlyConfiguredException as exc:
        raise LoadError(f"{name}: {exc}") from exc
    except Exception as exc:
        raise LoadError(f"{name} cannot be imported:\n{_own_traceback(exc)}") from exc


def _own_traceback(exc: Exception) -> str:
    """The traceback without the frames of this module and of importlib."""
    frames = exc.__traceback__
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in {__file__, importlib.__file__}
        or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    return "".join(traceback.format_exception(exc.with_traceback(frames), chain=True)).rstrip()


def _make(found: object, target: str) -> object:
    if not callable(found):
        raise LoadError(f"--factory: {target} is {_what(found)}, not a function that returns the app")
    try:
        return found()
    except ImproperlyConfiguredException as exc:
        raise LoadError(f"{target}(): {exc}") from exc


def _checked(found: object, target: str, module: ModuleType) -> ASGIApp:
    if isinstance(found, FunctionType) and not positional_count(found):
        raise LoadError(f"{target} is {_what(found)}, which takes no arguments: if it returns the app, add --factory")
    if not callable(found) or isinstance(found, type):
        raise LoadError(f"{target} is {_what(found)}, not an ASGI app: {_apps_of(module)}")
    return found


def _apps_of(module: ModuleType) -> str:
    """A list of the apps in ``module``, for error texts."""
    apps = [name for name, value in vars(module).items() if isinstance(value, Telex)]
    if apps:
        return "it has " + ", ".join(f"{module.__name__}:{name}" for name in apps)
    return f"there is no Telex in {module.__file__ or module.__name__}"


def _modules_here() -> str:
    here = Path.cwd()
    names = [path.stem for path in here.glob("*.py")] + [path.parent.name for path in here.glob("*/__init__.py")]
    return f"here are {', '.join(sorted(names))}" if names else "there are no Python files here; see --app-dir"


def _what(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, FunctionType):
        return f"the function {describe(value)}"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
