"""The tables and the function that carry channels in a PostgreSQL database."""

from __future__ import annotations

from typing import Final, LiteralString

__all__ = ("SCHEMA",)

SCHEMA: Final[LiteralString] = """
CREATE TABLE IF NOT EXISTS telex_channels (
    channel text PRIMARY KEY, epoch text NOT NULL, last bigint NOT NULL, expires timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS telex_events (
    channel text NOT NULL REFERENCES telex_channels ON DELETE CASCADE, id bigint NOT NULL, data bytea NOT NULL,
    at timestamptz NOT NULL, PRIMARY KEY (channel, id)
);
CREATE TABLE IF NOT EXISTS telex_values (
    id bigint PRIMARY KEY, data bytea NOT NULL, at timestamptz NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS telex_ids;
CREATE OR REPLACE FUNCTION telex_publish(of_channel text, of_data bytea, size integer, seconds float8) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    now timestamptz := clock_timestamp();
    stands telex_channels;
    packed text := encode(of_data, 'base64');
    in_full boolean := length(packed) < 7500;
    head text;
BEGIN
    IF size IS NULL THEN
        -- The number keeps equal values of one transaction apart: the server would fold them into one.
        stands.last := nextval('telex_ids');
        head := ':' || stands.last;
        IF NOT in_full THEN
            DELETE FROM telex_values WHERE at < now - interval '1 minute';
            INSERT INTO telex_values VALUES (stands.last, of_data, now);
        END IF;
    ELSE
        INSERT INTO telex_channels AS c VALUES (
            of_channel, substr(md5(random()::text || now::text), 1, 12), 1, now + make_interval(secs => seconds + 86400)
        ) ON CONFLICT (channel) DO UPDATE SET last = c.last + 1, expires = excluded.expires RETURNING * INTO stands;
        INSERT INTO telex_events VALUES (of_channel, stands.last, of_data, now);
        DELETE FROM telex_events WHERE channel = of_channel
            AND (id <= stands.last - size OR at < now - make_interval(secs => seconds));
        head := stands.epoch || ':' || stands.last;
    END IF;
    PERFORM pg_notify(
        'telex_' || left(encode(sha256(convert_to(of_channel, 'UTF8')), 'hex'), 40),
        head || CASE WHEN in_full THEN ' ' || packed ELSE '' END
    );
    RETURN stands.last;
END $$;
"""
"""What the backend creates at its start, if its user may. Else run this once as somebody who may."""
