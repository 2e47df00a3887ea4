"""The tables and functions of channels in a PostgreSQL database, and the statements that use them.

Numbers of events. The number of an event is the microsecond at which it was published, by the database's clock, and at
least one more than the channel's previous number. So a database that lacks its newest events, after a restore from a
backup or a failover, does not give their numbers to other events, and a replay since one of them is incomplete. The
age of an event is computed from its number. Each event stores the number of the event before it (0 for the first known
one), so that holes are detected, and an ordinal, by which the newest ``size`` events are kept.

Channels without a row. The position of such a channel is the number of hours since 1970, which is far below any number
of an event. So reading a position writes nothing and takes no lock, even while an open transaction will create the row.
The position is valid as long as no event can have been added and deleted since: a channel's row is deleted two days
after its last event has expired, and hours are valid for one day.

Transactions. ``telex_publish`` stores its event in a staging table, where only its own transaction sees it. At the
commit the event is numbered, stored and notified. The channel's row is locked only then, so a transaction may stay open
for any time. All transactions lock rows in the order of the channels' bytes, so that they do not deadlock.

The epoch is a digest of the table's OID, the server's timeline and its system identifier. It changes when a replica is
promoted, when a backup is recovered to a point in time, and when the data moves to another server. The function runs as
its owner, so that the epoch does not depend on the caller's permissions. If the owner may not read the identifiers
either, only the numbers detect a loss. They fail if the newest events are lost *and* the clock is set back, on the same
timeline. To begin a new epoch, drop the tables: ``TRUNCATE`` does not change the epoch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from telex.exceptions import ImproperlyConfiguredException

__all__ = ("PREFIX", "SCHEMA", "Statements", "schema_with")

PREFIX: Final = "telex_"

_MAX_PREFIX: Final = 20
"""The longest prefix: with it all names are shorter than PostgreSQL's limit of 63 bytes."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS telex_channels (
    channel text PRIMARY KEY, previous bigint NOT NULL, last bigint NOT NULL, count bigint NOT NULL,
    is_empty boolean NOT NULL, expires timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS telex_events (
    channel text NOT NULL REFERENCES telex_channels ON DELETE CASCADE, id bigint NOT NULL, previous bigint NOT NULL,
    ordinal bigint NOT NULL, data bytea NOT NULL, kind text NOT NULL, PRIMARY KEY (channel, id)
);
CREATE TABLE IF NOT EXISTS telex_values (
    id bigint PRIMARY KEY, data bytea NOT NULL, at timestamptz NOT NULL
);
CREATE UNLOGGED TABLE IF NOT EXISTS telex_staged (
    transaction bigint NOT NULL, id bigint NOT NULL, is_first boolean NOT NULL, channel text NOT NULL,
    data bytea NOT NULL, kind text NOT NULL, size integer, seconds float8, PRIMARY KEY (transaction, id)
);
CREATE SEQUENCE IF NOT EXISTS telex_ids;

CREATE OR REPLACE FUNCTION telex_epoch(of_table oid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    timeline text := '';
    system text := '';
BEGIN
    -- Some providers refuse one of these functions, with different errors.
    BEGIN
        timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN OTHERS THEN
        timeline := '';
    END;
    BEGIN
        system := system_identifier FROM pg_control_system();
    EXCEPTION WHEN OTHERS THEN
        system := '';
    END;
    RETURN left(encode(sha256(convert_to(concat_ws(' ', timeline, system, of_table), 'UTF8')), 'hex'), 12);
END $$;

CREATE OR REPLACE FUNCTION telex_send(of_channel text, of_data bytea, kind text, size integer, seconds float8)
RETURNS text
-- Plans are made while the tables are small, and must use the index when the tables are large.
LANGUAGE plpgsql SET enable_sort = off AS $$
DECLARE
    now timestamptz := clock_timestamp();
    number bigint := extract(epoch FROM now) * 1000000;
    age float8 := least(seconds, 3e9);  -- 95 years, because timestamps are limited
    stands telex_channels;
    outdated bigint;
    packed text := encode(of_data, 'base64');
    in_full boolean := length(packed) < 7500;
    head text;
    position text;
BEGIN
    IF size IS NULL THEN
        -- The number makes equal values of one transaction distinct: the server would merge equal notices.
        number := nextval('telex_ids');
        head := ':' || number || '::' || kind;
        IF NOT in_full THEN
            DELETE FROM telex_values WHERE id IN (
                SELECT id FROM telex_values WHERE at < now - interval '1 minute' LIMIT 100 FOR UPDATE SKIP LOCKED
            );
            INSERT INTO telex_values VALUES (number, of_data, now);
        END IF;
    ELSE
        INSERT INTO telex_channels AS c VALUES (of_channel, 0, number, 1, false, now + make_interval(secs => age))
        ON CONFLICT (channel) DO UPDATE SET
            previous = c.last, last = greatest(c.last + 1, excluded.last), count = c.count + 1,
            is_empty = false, expires = excluded.expires
        RETURNING * INTO stands;
        INSERT INTO telex_events VALUES (of_channel, stands.last, stands.previous, stands.count, of_data, kind);
        -- Deletes up to 16 of the oldest events, so that the number also shrinks after the limit was lowered.
        SELECT max(id) INTO outdated
        FROM (SELECT id, ordinal FROM telex_events WHERE channel = of_channel ORDER BY id LIMIT 16) AS oldest
        WHERE ordinal <= stands.count - size OR id < number - age * 1000000;
        DELETE FROM telex_events WHERE channel = of_channel AND id <= outdated;
        position := telex_epoch('telex_channels'::regclass) || ':' || stands.last;
        head := position || ':' || stands.previous || ':' || kind;
    END IF;
    PERFORM pg_notify(
        'telex_' || left(encode(sha256(convert_to(of_channel, 'UTF8')), 'hex'), 40),
        head || CASE WHEN in_full THEN ' ' || packed ELSE '' END
    );
    RETURN position;
END $$;

CREATE OR REPLACE FUNCTION telex_send_staged() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    staged telex_staged;
BEGIN
    FOR staged IN
        WITH taken AS (DELETE FROM telex_staged WHERE transaction = txid_current() RETURNING *)
        SELECT * FROM taken ORDER BY channel COLLATE "C", id
    LOOP
        PERFORM telex_send(staged.channel, staged.data, staged.kind, staged.size, staged.seconds);
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION telex_stage(of_channel text, of_data bytea, kind text, size integer, seconds float8)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO telex_staged VALUES (
        txid_current(), nextval('telex_ids'),
        NOT EXISTS (SELECT FROM telex_staged WHERE transaction = txid_current()),
        of_channel, of_data, kind, size, seconds
    );
END $$;

CREATE OR REPLACE FUNCTION telex_publish(of_channel text, of_data bytea, size integer, seconds float8) RETURNS void
LANGUAGE sql AS $$ SELECT telex_stage(of_channel, of_data, 'bytes', size, seconds) $$;

-- Without these a literal would be parsed as a bytea, in which a backslash is an escape character.
CREATE OR REPLACE FUNCTION telex_publish(of_channel text, of_data text, size integer, seconds float8) RETURNS void
LANGUAGE sql AS $$ SELECT telex_stage(of_channel, convert_to(of_data, 'UTF8'), 'text', size, seconds) $$;

CREATE OR REPLACE FUNCTION telex_publish(of_channel text, of_data jsonb, size integer, seconds float8) RETURNS void
LANGUAGE sql AS $$ SELECT telex_stage(of_channel, convert_to(of_data::text, 'UTF8'), 'json', size, seconds) $$;

CREATE OR REPLACE FUNCTION telex_sweep() RETURNS void
LANGUAGE sql AS $$
    -- Rows that a publisher has locked are skipped: they are in use, or the next sweep deletes them.
    DELETE FROM telex_events WHERE (channel, id) IN (
        SELECT e.channel, e.id FROM telex_channels AS c JOIN telex_events AS e USING (channel)
        WHERE NOT c.is_empty AND c.expires < clock_timestamp() LIMIT 10000 FOR UPDATE OF e SKIP LOCKED
    );
    UPDATE telex_channels SET is_empty = true, expires = expires + interval '2 days' WHERE channel IN (
        SELECT channel FROM telex_channels AS c WHERE NOT is_empty AND expires < clock_timestamp()
        AND NOT EXISTS (SELECT FROM telex_events AS e WHERE e.channel = c.channel) LIMIT 1000 FOR UPDATE SKIP LOCKED
    );
    DELETE FROM telex_channels WHERE channel IN (
        SELECT channel FROM telex_channels WHERE is_empty AND expires < clock_timestamp() LIMIT 1000
        FOR UPDATE SKIP LOCKED
    );
$$;

DO $$
DECLARE
    made regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'telex_staged'::regclass AND tgname = 'telex_at_commit') THEN
        CREATE CONSTRAINT TRIGGER telex_at_commit AFTER INSERT ON telex_staged DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.is_first) EXECUTE FUNCTION telex_send_staged();
    END IF;
    -- Fixes the search path of the functions, independent of the caller's at the commit.
    FOREACH made IN ARRAY ARRAY[
        'telex_send(text, bytea, text, integer, float8)', 'telex_stage(text, bytea, text, integer, float8)',
        'telex_publish(text, bytea, integer, float8)',
        'telex_publish(text, text, integer, float8)', 'telex_publish(text, jsonb, integer, float8)',
        'telex_send_staged()', 'telex_sweep()'
    ]::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', made, current_schema());
    END LOOP;
END $$;
"""
"""The SQL that the backend runs at its start. If its role may not create tables, run it once as another role.

For another prefix use :func:`schema_with`.
"""

_TARGETS: Final = "FROM unnest(%s::text[], %s::int[], %s::float8[]) AS target (channel, size, seconds)"

_STANDS: Final = (
    "(SELECT telex_epoch('telex_channels'::regclass)),"
    " coalesce(c.last, floor(extract(epoch FROM clock_timestamp()) / 3600)::bigint)"
)


@dataclass(frozen=True)
class Statements:
    """The SQL statements of the backend. Each reads one snapshot, so that a head and its events are consistent."""

    schema: str = SCHEMA
    publish: str = f"SELECT channel, telex_send(channel, %s, %s, size, seconds) {_TARGETS}"
    publish_at_commit: str = f"SELECT telex_stage(channel, %s, %s, size, seconds) {_TARGETS}"
    positions: str = (
        f"SELECT asked.channel, {_STANDS} FROM unnest(%s::text[]) AS asked (channel)"  # noqa: S608 - of constants
        " LEFT JOIN telex_channels AS c USING (channel)"
    )
    history: str = (
        f"SELECT {_STANDS}, e.id, e.previous,"  # noqa: S608 - of constants
        " CASE WHEN sum(e.size) OVER (ORDER BY e.id DESC) <= 262144 THEN e.data END, e.size, e.kind"
        " FROM (SELECT %s::text AS channel) AS asked"
        " LEFT JOIN telex_channels AS c USING (channel) LEFT JOIN LATERAL ("
        " SELECT id, previous, data, octet_length(data) AS size, kind FROM telex_events"
        " WHERE channel = asked.channel AND id > %s::bigint AND id < %s::bigint"
        " AND id > (greatest(extract(epoch FROM now()) - %s::float8, 0) * 1000000)::bigint ORDER BY id DESC LIMIT %s"
        ") AS e ON true ORDER BY e.id"
    )
    values: str = "SELECT id, data FROM telex_events WHERE channel = %s AND id = ANY(%s)"
    sweep: str = "SELECT telex_sweep()"
    value: str = "SELECT data FROM telex_values WHERE id = %s"
    kept_value: str = "SELECT data FROM telex_events WHERE channel = %s AND id = %s"

    @classmethod
    def named(cls, prefix: str) -> Statements:
        """The statements for names that begin with ``prefix``.

        :raises ImproperlyConfiguredException: the prefix cannot begin a name in PostgreSQL.
        """
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", prefix, re.ASCII) or len(prefix) > _MAX_PREFIX:
            raise ImproperlyConfiguredException(
                f"prefix={prefix!r} cannot begin the names of tables: write at most {_MAX_PREFIX} of a-z, 0-9 and _,"
                " and no digit first"
            )
        return cls(*(str(field.default).replace(PREFIX, prefix) for field in fields(cls)))


def schema_with(prefix: str) -> str:
    """:data:`SCHEMA` for ``PostgresBackend(url, prefix=prefix)``.

    :raises ImproperlyConfiguredException: the prefix cannot begin a name in PostgreSQL.
    """
    return Statements.named(prefix).schema
