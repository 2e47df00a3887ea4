"""The commands. ``main`` imports this module, and reports if click or rich is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
from rich.console import Console

from telex import __version__
from telex.cli.documents import client_name, client_of, difference, document_of, read_document, written_as
from telex.cli.loading import LoadError, load_telex, make_importable
from telex.cli.routes import routes_table
from telex.contract.compatibility import compare, report
from telex.contract.document import AsyncAPIVersion
from telex.exceptions import ImproperlyConfiguredException
from telex.protocol.close_codes import table

__all__ = ("telex",)

_app_dir = click.option(
    "--app-dir", default=".", metavar="DIR", show_default=True, help="The directory that modules are imported from."
)
_file = click.Path(dir_okay=False, path_type=Path)
_factory = click.option("--factory", is_flag=True, default=None, help="TARGET is a function that returns the app.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="telex", message="%(prog)s %(version)s")
def telex() -> None:
    """Serve an app, print its routes, write its contract, or check a client.

    TARGET is module:attribute, such as chat.app:app.

    \b
    telex run chat.app:app --reload
    telex routes chat.app:app
    telex run --help
    """


@telex.command(short_help="Serve TARGET until Ctrl+C or SIGTERM.")
@click.argument("target")
@click.option("--host", help="The address to listen on (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (default: 8000); 0 chooses a free one.")
@click.option("--uds", metavar="PATH", help="A Unix socket to listen on, instead of host and port.")
@click.option("--fd", type=int, help="The descriptor of a socket that already listens.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve the app (default: 1).")
@click.option("--reload", is_flag=True, default=None, help="Restart when a Python file changes.")
@click.option("--reload-dir", "reload_dirs", multiple=True, metavar="DIR", help="A directory to watch (repeatable).")
@_factory
@_app_dir
@click.option("--root-path", metavar="PATH", help="The path under which a proxy serves the app.")
@click.option("--health-path", metavar="PATH", help="The path that answers 200 while the process is alive.")
@click.option("--ready-path", metavar="PATH", help="The path that answers 200 while it takes new clients, else 503.")
@click.option("--forwarded-allow-ips", metavar="IPS", help="Proxies whose X-Forwarded-* headers are used.")
@click.option("--ssl-keyfile", metavar="FILE", help="The private key, for https and wss.")
@click.option("--ssl-keyfile-password", metavar="TEXT", help="The password of the private key.")
@click.option("--ssl-certfile", metavar="FILE", help="The certificate chain.")
@click.option(
    "--log-level",
    type=click.Choice(["critical", "error", "warning", "info", "debug", "trace"]),
    help="The lowest level that is logged (default: info).",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json", "none"]), help="The format of log lines (default: text)."
)
@click.option("--access-log/--no-access-log", default=None, help="Log each request and handshake (default: yes).")
@click.option("--drain-timeout", type=float, metavar="SECONDS", help="How long a graceful stop may take (default: 30).")
def run(target: str, app_dir: str, **settings: object) -> None:
    """Serve TARGET until Ctrl+C or SIGTERM.

    Environment variables can set the same options and more, such as TELEX_PORT=9000 or
    TELEX_PING_INTERVAL=30. An option on the command line overrides its variable.
    """
    given = {name: value for name, value in settings.items() if value is not None and value != ()}
    try:
        make_importable(app_dir)
        _serve(target, given)
    except LoadError as exc:
        _fail(exc)


def _serve(target: str, given: dict[str, object]) -> None:
    """Run Telex's server. The import is here because the other commands do not need uvicorn and picows."""
    from telex.cli.serving import serve

    serve(target, given)


@telex.command(short_help="Print the routes of TARGET.")
@click.argument("target")
@_factory
@_app_dir
def routes(target: str, app_dir: str, factory: bool | None) -> None:
    """Print the routes of TARGET: paths, handlers, messages, guards and dependencies."""
    try:
        make_importable(app_dir)
        app = load_telex(target, factory=bool(factory))
    except LoadError as exc:
        _fail(exc)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNFOLDED
    console.print(routes_table(app.plans))


@telex.command("asyncapi", short_help="Write the AsyncAPI document of TARGET.")
@click.argument("target")
@click.option("--out", type=_file, metavar="FILE", help="The file to write (default: standard output).")
@click.option("--yaml", is_flag=True, help="Write YAML (default: JSON, unless FILE ends with .yaml or .yml).")
@click.option(
    "--version",
    type=click.Choice(get_args(AsyncAPIVersion)),
    default="3.1.0",
    show_default=True,
    help="The version of AsyncAPI.",
)
@click.option("--check", type=_file, metavar="FILE", help="Write nothing; exit with 1 if FILE is not up to date.")
@click.option("--against", type=_file, metavar="FILE", help="Compare with FILE; exit with 1 if its clients may break.")
@_factory
@_app_dir
def asyncapi(
    target: str,
    out: Path | None,
    yaml: bool,
    version: AsyncAPIVersion,
    check: Path | None,
    against: Path | None,
    app_dir: str,
    factory: bool | None,
) -> None:
    """Write the AsyncAPI document of TARGET: its channels, messages, replies, errors, close codes and limits."""
    try:
        make_importable(app_dir)
        document = document_of(load_telex(target, factory=bool(factory)), version)
        if against is not None:
            _compare(read_document(against), document)
            return
        file = check or out
        text = written_as(document, yaml=yaml or (file is not None and file.suffix in {".yaml", ".yml"}))
        _write_or_check(text, out, check, f"telex asyncapi {target}")
    except LoadError as exc:
        _fail(exc)


@telex.command("client", short_help="Write the types of a client of TARGET.")
@click.argument("target")
@click.option("--lang", type=click.Choice(["ts", "py"]), required=True, help="TypeScript or Python.")
@click.option("--out", type=_file, metavar="FILE", help="The file to write (default: standard output).")
@click.option("--check", type=_file, metavar="FILE", help="Write nothing; exit with 1 if FILE is not up to date.")
@_factory
@_app_dir
def client(target: str, lang: str, out: Path | None, check: Path | None, app_dir: str, factory: bool | None) -> None:
    """Write the types of a client of TARGET, made for its contract.

    For TypeScript it is a typed client on the package telex-client, for Python the types of messages as msgspec
    Structs. The function or table has the name of the module of TARGET.
    """
    try:
        make_importable(app_dir)
        document = document_of(load_telex(target, factory=bool(factory)), "3.1.0")
        text = client_of(document, lang, client_name(target))
        _write_or_check(text, out, check, f"telex client {target} --lang {lang}")
    except LoadError as exc:
        _fail(exc)


def _compare(old: dict[str, Any], new: dict[str, Any]) -> None:
    try:
        differences = compare(old, new)
    except ImproperlyConfiguredException as exc:
        raise LoadError(exc.detail) from exc
    click.echo(report(differences))
    if any(each.is_breaking for each in differences):
        sys.exit(1)


def _write_or_check(text: str, out: Path | None, check: Path | None, command: str) -> None:
    if check is not None:
        changes = difference(check, text)
        if changes is not None:
            raise LoadError(f"{check} is not up to date: write it with {command} --out {check}\n{changes}")
    elif out is not None:
        out.write_text(text, "utf-8")
    else:
        click.echo(text, nl=False)


@telex.command("close-codes", short_help="Print the table of close codes as JSON.")
def close_codes() -> None:
    """Print the table of close codes as JSON: what each means, and what a client does after it."""
    click.echo(json.dumps(table(), indent=2))


@telex.command(short_help="Check a client of telex.v1.", context_settings={"ignore_unknown_options": True})
@click.option("--only", multiple=True, metavar="PATTERN", help="Scenarios by name, such as 'channels/*' (repeatable).")
@click.option("--list", "list_only", is_flag=True, help="Print the scenarios, and run none.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def conformance(command: tuple[str, ...], only: tuple[str, ...], list_only: bool) -> None:
    """Check a client of telex.v1 against a scripted server.

    COMMAND starts the client's adapter, which reads commands and prints observations, as JSON lines:

    \b
    telex conformance -- node conformance.js
    telex conformance --only 'channels/*' -- python adapter.py
    """
    from telex.cli.conformance import check_client, chosen

    if list_only:
        for scenario in chosen(only):
            click.echo(f"{scenario.name}: {scenario.shows}")
    elif not command:
        raise click.UsageError("name the command that starts the client's adapter: telex conformance -- COMMAND")
    elif not check_client(command, only):
        raise SystemExit(1)


_UNFOLDED = 10_000
"""The width of output to a pipe or file, in columns: each row stays on one line."""


def _fail(problem: LoadError) -> NoReturn:
    raise click.ClickException(str(problem))
