-- The schema's version, and what an operator makes, counts and prunes in it.

-- name: schema_state
-- Whether the schema exists, is ours, is empty; and whether firehose_cursor is there.
SELECT
    to_regnamespace(quote_ident($1)) IS NOT NULL AS there,
    to_regclass(quote_ident($1) || '.atproto_streams_migrations') IS NOT NULL AS ours,
    NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1))) AS empty,
    to_regclass('public.firehose_cursor') IS NOT NULL AS cursor,
    current_setting('server_version_num')::integer AS server_version;

-- name: migrations
SELECT coalesce(max(version), 0) FROM atproto_streams_migrations;

-- name: create_migrations
CREATE TABLE atproto_streams_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: add_migration
INSERT INTO atproto_streams_migrations (version, name) VALUES ($1, $2);

-- name: lock_migrations
-- One process migrates at a time, in any schema: they share firehose_cursor.
SELECT pg_advisory_xact_lock(7310868735421);

-- name: settle_schema
-- For the transaction only. The schema is asked for when the path is set: the CTE's row is needed first.
WITH path AS MATERIALIZED (SELECT set_config('search_path', $1, true) AS set)
SELECT current_schema() FROM path WHERE path.set IS NOT NULL;

-- name: blocks_of_records
-- How many blocks the largest of the tables of records has.
SELECT coalesce(max(pg_relation_size(t.relid)), 0) / current_setting('block_size')::bigint
FROM pg_partition_tree('records') AS t WHERE t.isleaf;

-- name: blocks_of_dead_letters
SELECT pg_relation_size('dead_letters') / current_setting('block_size')::bigint;

-- name: blocks_of_gaps
SELECT pg_relation_size('gaps') / current_setting('block_size')::bigint;

-- name: old_tombstones
-- The prune_ and old_ queries look at the blocks from $2 to before $3 of each table, so that a batch is bounded whatever it
-- finds. A row that somebody holds is being rewritten: it is passed over, so a worker is never waited for.
SELECT count(*) FROM records AS r
WHERE r.ctid >= format('(%s,0)', $2::bigint)::tid AND r.ctid < format('(%s,0)', $3::bigint)::tid
  AND r.record IS NULL AND r.indexed_at < $1;

-- name: prune_tombstones
WITH old AS (
    SELECT r.tableoid AS leaf, r.ctid AS place FROM records AS r
    WHERE r.ctid >= format('(%s,0)', $2::bigint)::tid AND r.ctid < format('(%s,0)', $3::bigint)::tid
      AND r.record IS NULL AND r.indexed_at < $1
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM records AS r USING old
    WHERE r.tableoid = old.leaf AND r.ctid = old.place
      AND r.ctid >= format('(%s,0)', $2::bigint)::tid AND r.ctid < format('(%s,0)', $3::bigint)::tid
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: old_dead_letters
SELECT count(*) FROM dead_letters AS r
WHERE r.ctid >= format('(%s,0)', $2::bigint)::tid AND r.ctid < format('(%s,0)', $3::bigint)::tid AND r.created_at < $1;

-- name: prune_dead_letters
WITH gone AS (
    DELETE FROM dead_letters AS r
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM dead_letters AS o
        WHERE o.ctid >= format('(%s,0)', $2::bigint)::tid AND o.ctid < format('(%s,0)', $3::bigint)::tid
          AND o.created_at < $1
        FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: old_gaps
SELECT count(*) FROM gaps AS r
WHERE r.ctid >= format('(%s,0)', $2::bigint)::tid AND r.ctid < format('(%s,0)', $3::bigint)::tid AND r.created_at < $1;

-- name: prune_gaps
WITH gone AS (
    DELETE FROM gaps AS r
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM gaps AS o
        WHERE o.ctid >= format('(%s,0)', $2::bigint)::tid AND o.ctid < format('(%s,0)', $3::bigint)::tid
          AND o.created_at < $1
        FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: views
-- The views of the schema, and what their comments say.
SELECT relname AS name, obj_description(oid, 'pg_class') AS comment
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('v', 'm') ORDER BY 1;

-- name: relation_called
-- The relation of that name in our schema.
SELECT relkind = 'v' AS is_view, obj_description(oid, 'pg_class') AS comment
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = $1;

-- name: index_states
-- What is of the indexes of these names: whether each is valid, being built and how far, waits for whom, and its bytes.
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid, p.pid IS NOT NULL AS building,
       pg_relation_size(c.oid) AS size,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_total ELSE p.blocks_total END AS total,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_done ELSE p.blocks_done END AS done,
       CASE WHEN p.phase LIKE 'waiting for %' THEN nullif(p.current_locker_pid, 0) END AS waits_for
FROM pg_class AS c
JOIN pg_index AS i ON i.indexrelid = c.oid
LEFT JOIN pg_stat_progress_create_index AS p ON p.index_relid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1::text[]);

-- name: lock_indexes
-- One process builds indexes in a schema at a time.
SELECT pg_try_advisory_lock(hashtextextended('atproto-streams indexes ' || $1, 0));

-- name: unlock_indexes
SELECT pg_advisory_unlock(hashtextextended('atproto-streams indexes ' || $1, 0));

-- name: aggregates
-- The materialized views of the schema: whether they hold anything, their rows (an estimate), their bytes, what they count.
SELECT c.relname AS name, c.relispopulated AS populated, greatest(c.reltuples, 0)::bigint AS rows,
       pg_total_relation_size(c.oid) AS size, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class AS c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'm' ORDER BY 1;
