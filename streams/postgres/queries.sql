-- The named queries. A query begins with `-- name: …`; streams/postgres/queries.py reads them.

-- name: apply_batch
-- One batch of one partition, or nothing (migrations/0002_write_path.sql).
SELECT * FROM apply_batch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
);

-- name: add_positions
-- A row for each partition that has none yet.
INSERT INTO sink_offsets (topic, partition, consumer_group, next_offset)
SELECT $1, new.partition, $2, new.next_offset FROM unnest($3::integer[], $4::bigint[]) AS new (partition, next_offset)
ON CONFLICT DO NOTHING;

-- name: positions
-- Where each partition stands, and what was counted.
SELECT partition, next_offset, received, applied, skipped, dead, watermark_run, watermark_seq, watermark_time
FROM sink_offsets
WHERE topic = $1 AND consumer_group = $2 AND partition = ANY ($3::integer[]);

-- name: jump
-- The log begins later than the partition's position: what lies between is a gap.
WITH moved AS (
    UPDATE sink_offsets SET next_offset = $5, updated_at = now()
    WHERE topic = $1 AND consumer_group = $2 AND partition = $3 AND next_offset = $4
    RETURNING next_offset
), told AS (
    INSERT INTO gaps (topic, partition, "offset", to_offset, reason)
    SELECT $1, $3, $4, $5, $6 FROM moved
    ON CONFLICT DO NOTHING
)
SELECT next_offset FROM moved;

-- name: write_cursor
SELECT seq, event_time, run FROM write_cursor($1, $2, $3, $4);

-- name: resume_point
-- What is known of a topic that holds no watermark any more.
SELECT
    (SELECT topic_id FROM sink_offsets WHERE topic = $1 AND topic_id IS NOT NULL ORDER BY updated_at DESC LIMIT 1) AS topic_id,
    (SELECT cursor_seq(cursor) FROM public.firehose_cursor WHERE service = $2) AS seq,
    (SELECT last_event_time FROM public.firehose_cursor WHERE service = $2) AS event_time,
    (SELECT max(run) FROM runs WHERE topic = $1) AS run,
    (SELECT relay FROM runs WHERE topic = $1 ORDER BY run DESC LIMIT 1) AS relay;

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

-- name: standing
-- Where the sink stands, a row a partition.
SELECT partition, next_offset, watermark_seq, watermark_time, received, applied, skipped, dead
FROM sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: count_collections
SELECT collection, count(*) FROM records WHERE record IS NOT NULL GROUP BY 1 ORDER BY 2 DESC;

-- name: count_actors
SELECT count(*) FROM actors;

-- name: covered_from
-- The time from which the newest run that did not merely resume took the firehose.
SELECT greatest(asked_from, oldest_time) FROM runs WHERE topic = $1 AND mode <> 'resume' ORDER BY run DESC LIMIT 1;

-- name: covered_to
SELECT min(watermark_time) FROM sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: gaps
SELECT from_time, to_time, reason FROM gaps WHERE topic = $1 ORDER BY created_at, partition, "offset";

-- name: count_dead_letters
SELECT left(reason, 60), count(*) FROM dead_letters WHERE topic = $1 GROUP BY 1 ORDER BY 2 DESC;

-- name: cursor_text
SELECT cursor FROM public.firehose_cursor WHERE service = $1;

-- name: blocks_of_records
-- How many blocks the largest of the tables of records has.
SELECT coalesce(max(pg_relation_size(t.relid)), 0) / current_setting('block_size')::bigint
FROM pg_partition_tree('records') AS t WHERE t.isleaf;

-- name: blocks_of_dead_letters
SELECT pg_relation_size('dead_letters') / current_setting('block_size')::bigint;

-- name: blocks_of_gaps
SELECT pg_relation_size('gaps') / current_setting('block_size')::bigint;

-- The prune_ and old_ queries look at the blocks from $2 to before $3 of each table, so that a batch is bounded whatever it
-- finds. A row that somebody holds is being rewritten: it is passed over, so a worker is never waited for.

-- name: old_tombstones
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
-- What is of the indexes of these names: whether each is valid, being built and how far, and its bytes.
SELECT c.relname AS name, i.indisvalid AND i.indisready AS valid, p.pid IS NOT NULL AS building,
       pg_relation_size(c.oid) AS size,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_total ELSE p.blocks_total END AS total,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_done ELSE p.blocks_done END AS done
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

-- name: dead_letters_matching
-- The condition of the queries below, in the place that they leave for it: what is NULL is not asked for.
l.topic = $1
AND ($2::text IS NULL OR position(lower($2) IN lower(l.reason)) > 0)
AND ($3::text IS NULL OR l.did = $3)
AND ($4::text IS NULL OR l.collection = $4)
AND ($5::integer IS NULL OR l.partition = $5)
AND ($6::timestamptz IS NULL OR l.created_at >= $6)
AND ($7::timestamptz IS NULL OR l.created_at < $7);

-- name: count_letters
SELECT count(*), clock_timestamp() AS now FROM dead_letters AS l WHERE {matching};

-- name: list_letters
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.reason, l.created_at,
       coalesce(octet_length(l.payload), 0) AS bytes
FROM dead_letters AS l WHERE {matching}
ORDER BY l.created_at DESC, l.partition, l."offset" DESC LIMIT $8;

-- name: summarize_letters
SELECT left(l.reason, 60) AS reason, count(*), min(l.created_at) AS first, max(l.created_at) AS last
FROM dead_letters AS l WHERE {matching}
GROUP BY 1 ORDER BY 2 DESC, 1;

-- name: partitions_of_letters
SELECT DISTINCT l.partition FROM dead_letters AS l WHERE {matching} ORDER BY 1;

-- name: purge_letters
WITH gone AS (
    DELETE FROM dead_letters AS d
    WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM dead_letters AS l WHERE {matching} LIMIT $8 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: lock_letters
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.reason, l.payload, l.created_at
FROM dead_letters AS l WHERE {matching} AND l."offset" > $8
ORDER BY l."offset" LIMIT $9 FOR UPDATE;

-- name: letter
SELECT partition, "offset", seq, did, collection, rkey, time, reason, payload, created_at
FROM dead_letters WHERE topic = $1 AND partition = $2 AND "offset" = $3;

-- name: delete_letters
DELETE FROM dead_letters WHERE topic = $1 AND partition = $2 AND "offset" = ANY ($3::bigint[]);

-- name: keep_age_of_letters
UPDATE dead_letters AS l SET created_at = old.created_at
FROM unnest($3::bigint[], $4::timestamptz[]) AS old ("offset", created_at)
WHERE l.topic = $1 AND l.partition = $2 AND l."offset" = old."offset";

-- name: put_back_letter
INSERT INTO dead_letters (topic, partition, "offset", seq, reason, payload, created_at)
VALUES ($1, $2, $3, $4, left($5, 500), $6, $7) ON CONFLICT DO NOTHING RETURNING true;

-- name: lock_positions
-- In the order of the partitions; a worker holds one at a time.
SELECT partition, next_offset FROM sink_offsets
WHERE topic = $1 AND consumer_group = $2 ORDER BY partition FOR UPDATE;

-- name: count_replayed
-- A letter that another group of this schema had counted was skipped by this one: dead does not fall below zero.
UPDATE sink_offsets
SET applied = applied + $4, dead = greatest(dead + $5, 0), skipped = received - (applied + $4) - greatest(dead + $5, 0)
WHERE topic = $1 AND partition = $2 AND consumer_group = $3;

-- name: list_gaps
-- Relay gaps have no to_offset, the topic's own have one. NULL is not asked for.
SELECT partition, "offset", to_offset, relay, run, from_seq, to_seq, from_time, to_time, reason, created_at
FROM gaps
WHERE topic = $1
  AND ($2::text IS NULL OR (to_offset IS NOT NULL) = ($2 = 'topic'))
  AND ($3::integer IS NULL OR partition = $3)
  AND ($4::timestamptz IS NULL OR created_at >= $4)
  AND ($5::timestamptz IS NULL OR created_at < $5)
ORDER BY created_at DESC, partition, "offset" DESC LIMIT $6;

-- name: total_of_gaps
SELECT (to_offset IS NOT NULL) AS of_topic, count(*), coalesce(sum(to_offset - "offset"), 0)::bigint AS offsets,
       count(*) FILTER (WHERE to_offset IS NULL AND (from_seq IS NULL OR to_seq IS NULL)) AS unknown,
       coalesce(sum(to_seq - from_seq + 1), 0)::bigint AS seqs
FROM gaps
WHERE topic = $1
  AND ($2::text IS NULL OR (to_offset IS NOT NULL) = ($2 = 'topic'))
  AND ($3::integer IS NULL OR partition = $3)
  AND ($4::timestamptz IS NULL OR created_at >= $4)
  AND ($5::timestamptz IS NULL OR created_at < $5)
GROUP BY 1 ORDER BY 1;
