"""The entry point of the command line. It imports without the optional libraries, to report a missing one."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ("main",)

_NEEDED: Final = {"click": "cli", "rich": "cli", "uvicorn": "server", "picows": "server"}
"""The libraries of the command line, and the extra that installs each."""


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit."""
    try:
        from telex.cli.commands import telex

        telex(prog_name="telex")
    except ModuleNotFoundError as exc:
        extra = _NEEDED.get(exc.name or "")
        if extra is None:
            raise
        sys.exit(f"This command needs {exc.name}, which is not installed: pip install 'telex[{extra}]'")
