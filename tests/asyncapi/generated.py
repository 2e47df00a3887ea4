"""Imports the types that ``telex client --lang py`` writes."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

from telex.contract.python import write_python

_count = itertools.count()


def types_of(document: dict[str, Any], name: str = "app") -> dict[str, Any]:
    """The names of the generated module; its classes are resolved where they stand, as in any module."""
    module = ModuleType(f"generated_{next(_count)}")
    sys.modules[module.__name__] = module
    exec(write_python(document, name), vars(module))  # noqa: S102
    return vars(module)
