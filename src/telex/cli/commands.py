"""The commands. Imported once it is known that click and rich are there."""

from __future__ import annotations

from typing import NoReturn

import click
from rich.console import Console

from telex import __version__
from telex.cli.loading import LoadError, load_telex, make_importable
from telex.cli.routes import routes_table

__all__ = ("telex",)

_app_dir = click.option(
    "--app-dir", default=".", metavar="DIR", show_default=True, help="Where modules are imported from."
)
_factory = click.option("--factory", is_flag=True, default=None, help="TARGET is a function that makes the app.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="telex", message="%(prog)s %(version)s")
def telex() -> None:
    """WebSockets, typed: run an app, or look at it.

    TARGET is always module:attribute, such as chat.app:app.
    """


@telex.command()
@click.argument("target")
@click.option("--host", help="The address to listen on (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (default: 8000); 0 takes a free one.")
@click.option("--uds", metavar="PATH", help="A Unix socket to listen on instead.")
@click.option("--fd", type=int, help="A listening socket that another process opened.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve the app (default: 1).")
@click.option("--reload", is_flag=True, default=None, help="Start anew when a Python file changes.")
@click.option("--reload-dir", "reload_dirs", multiple=True, metavar="DIR", help="What to watch; may be given often.")
@_factory
@_app_dir
@click.option("--root-path", metavar="PATH", help="The path that a proxy in front serves the app under.")
@click.option("--ssl-keyfile", metavar="FILE", help="The private key, for https and wss.")
@click.option("--ssl-keyfile-password", metavar="TEXT", help="What the private key is encrypted with.")
@click.option("--ssl-certfile", metavar="FILE", help="The certificate, with those between it and the authority.")
@click.option(
    "--log-level",
    type=click.Choice(["critical", "error", "warning", "info", "debug", "trace"]),
    help="The least severe lines that are logged (default: info).",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Lines to read, or JSON (default: text).")
@click.option("--access-log/--no-access-log", default=None, help="Log each request and handshake (default: yes).")
@click.option("--drain-timeout", type=float, metavar="SECONDS", help="The time to stop gracefully in (default: 30).")
def run(target: str, app_dir: str, **settings: object) -> None:
    """Serve TARGET until Ctrl+C or SIGTERM.

    Every setting of the server may also be an environment variable: TELEX_PORT=9000, TELEX_PING_INTERVAL=30. An option
    here counts more.
    """
    given = {name: value for name, value in settings.items() if value is not None and value != ()}
    try:
        make_importable(app_dir)
        _serve(target, given)
    except LoadError as exc:
        _fail(exc)


def _serve(target: str, given: dict[str, object]) -> None:
    """Run Telex's own server. Imported here, for the other commands do without uvicorn and picows."""
    from telex.cli.serving import serve

    serve(target, given)


@telex.command()
@click.argument("target")
@_factory
@_app_dir
def routes(target: str, app_dir: str, factory: bool | None) -> None:
    """Print what TARGET serves: paths, handlers, messages, guards and dependencies."""
    try:
        make_importable(app_dir)
        app = load_telex(target, factory=bool(factory))
    except LoadError as exc:
        _fail(exc)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNFOLDED
    console.print(routes_table(app.plans))


_UNFOLDED = 10_000
"""Columns for a pipe: each row stays one line, whatever it holds."""


def _fail(problem: LoadError) -> NoReturn:
    raise click.ClickException(str(problem))
