"""PostgreSQL: LISTEN and NOTIFY for live events, tables for history."""

from __future__ import annotations

from telex.exceptions import MissingDependencyException

try:
    import psycopg  # noqa: F401
except ImportError as _missing:
    raise MissingDependencyException("psycopg", "postgres") from _missing

from telex.channels.backends.postgres.backend import PostgresBackend
from telex.channels.backends.postgres.schema import SCHEMA, schema_with

__all__ = ("SCHEMA", "PostgresBackend", "schema_with")
