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
    INSERT INTO gaps (topic, partition, "offset", to_offset, reason, kind)
    SELECT $1, $3, $4, $5, $6, $7 FROM moved
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

-- name: settle_schema
-- For the transaction only. The schema is asked for when the path is set: the CTE's row is needed first.
WITH path AS MATERIALIZED (SELECT set_config('search_path', $1, true) AS set)
SELECT current_schema() FROM path WHERE path.set IS NOT NULL;

-- name: standing
-- Where the sink stands, a row a partition.
SELECT partition, next_offset, watermark_run, watermark_seq, watermark_time, received, applied, skipped, dead, odd_claims
FROM sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: newest_run
-- What the last run set out to take.
SELECT run, from_seq, head_seq FROM runs WHERE topic = $1 ORDER BY run DESC LIMIT 1;

-- name: count_collections
SELECT collection, count(*) FROM records WHERE record IS NOT NULL GROUP BY 1 ORDER BY 2 DESC;

-- name: count_actors
SELECT count(*) FROM actors;

-- name: covered_from
-- The time from which the newest run that did not merely resume took the firehose, as frames have shown it: a relay that
-- has shown nothing proves nothing.
SELECT CASE WHEN oldest_time IS NOT NULL THEN greatest(asked_from, oldest_time) END FROM runs WHERE topic = $1 AND mode <> 'resume' ORDER BY run DESC LIMIT 1;

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
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.kind, l.reason, l.created_at,
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
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.reason, l.payload, l.created_at, l.kind
FROM dead_letters AS l WHERE {matching} AND l."offset" > $8
ORDER BY l."offset" LIMIT $9 FOR UPDATE;

-- name: letter
SELECT partition, "offset", seq, did, collection, rkey, time, reason, payload, created_at, kind
FROM dead_letters WHERE topic = $1 AND partition = $2 AND "offset" = $3;

-- name: delete_letters
DELETE FROM dead_letters WHERE topic = $1 AND partition = $2 AND "offset" = ANY ($3::bigint[]);

-- name: keep_age_of_letters
UPDATE dead_letters AS l SET created_at = old.created_at
FROM unnest($3::bigint[], $4::timestamptz[]) AS old ("offset", created_at)
WHERE l.topic = $1 AND l.partition = $2 AND l."offset" = old."offset";

-- name: put_back_letter
INSERT INTO dead_letters (topic, partition, "offset", seq, reason, payload, created_at, kind)
VALUES ($1, $2, $3, $4, left($5, 500), $6, $7, $8) ON CONFLICT DO NOTHING RETURNING true;

-- name: lock_positions
-- In the order of the partitions; a worker holds one at a time.
SELECT partition, next_offset FROM sink_offsets
WHERE topic = $1 AND consumer_group = $2 ORDER BY partition FOR UPDATE;

-- name: move_back
-- Never forward: the rows are locked, and what lies between would be lost.
UPDATE sink_offsets AS o SET next_offset = moved.next_offset, updated_at = now()
FROM unnest($3::integer[], $4::bigint[]) AS moved (partition, next_offset)
WHERE o.topic = $1 AND o.consumer_group = $2 AND o.partition = moved.partition AND o.next_offset > moved.next_offset;

-- name: cursor_sources
SELECT partition, next_offset, watermark_run, watermark_seq, watermark_time
FROM sink_offsets WHERE topic = $1 AND consumer_group = $2 ORDER BY partition;

-- name: cursors
SELECT service, cursor, last_event_time, updated_at FROM public.firehose_cursor ORDER BY service;

-- name: lock_cursor
-- The lock of the function write_cursor.
SELECT pg_advisory_xact_lock(hashtextextended('firehose_cursor ' || $1, 0));

-- name: set_cursor
UPDATE public.firehose_cursor SET cursor = $2, last_event_time = NULL, updated_at = now() AT TIME ZONE 'UTC'
WHERE service = $1 RETURNING true;

-- name: add_cursor
INSERT INTO public.firehose_cursor (service, cursor, updated_at) VALUES ($1, $2, now() AT TIME ZONE 'UTC');

-- name: count_replayed
-- A letter that another group of this schema had counted was skipped by this one: dead does not fall below zero.
UPDATE sink_offsets
SET applied = applied + $4, dead = greatest(dead + $5, 0), skipped = received - (applied + $4) - greatest(dead + $5, 0)
WHERE topic = $1 AND partition = $2 AND consumer_group = $3;

-- name: list_gaps
-- Relay gaps have no to_offset, the topic's own have one. NULL is not asked for.
SELECT partition, "offset", to_offset, relay, run, from_seq, to_seq, from_time, to_time, reason, created_at,
       kind AS gap_kind
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

-- Of a rebuild. `live.` and `rebuilt.` stand for the names of two schemas: streams/maintenance/rebuild/schema.py:both puts them in.

-- name: lock_rebuild
-- One process fills a schema at a time.
SELECT pg_try_advisory_lock(hashtextextended('atproto-streams rebuild ' || $1, 0));

-- name: create_rebuild
CREATE TABLE IF NOT EXISTS rebuilt.rebuild_state (
    topic          text NOT NULL,
    consumer_group text NOT NULL,
    live           text NOT NULL,
    begins         jsonb NOT NULL,
    seed           boolean NOT NULL,
    seeded         boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- name: rebuild_there
-- Whether the schema exists, and whether it is a rebuild's.
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL AS there,
       to_regclass(quote_ident($1) || '.rebuild_state') IS NOT NULL AS begun,
       obj_description(to_regnamespace(quote_ident($1)), 'pg_namespace') AS comment;

-- name: rebuild_empty
SELECT NOT EXISTS (SELECT FROM rebuilt.sink_offsets) AND NOT EXISTS (SELECT FROM rebuilt.records);

-- name: rebuild_state
SELECT topic, consumer_group, live, begins, seed, seeded FROM rebuilt.rebuild_state;

-- name: add_rebuild
INSERT INTO rebuilt.rebuild_state (topic, consumer_group, live, begins, seed) VALUES ($1, $2, $3, $4, $5);

-- name: seed_columns
-- The columns of a table that both schemas have and that are not computed.
SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass('rebuilt.' || quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  AND EXISTS (SELECT FROM pg_attribute AS b
              WHERE b.attrelid = to_regclass('live.' || quote_ident($1)) AND b.attname = a.attname AND NOT b.attisdropped);

-- name: set_seeded
UPDATE rebuilt.rebuild_state SET seeded = true, begins = $1;

-- name: pass_over
-- What is before it in the partition stands in the seed, and is not read.
UPDATE rebuilt.rebuild_state SET begins = jsonb_set(begins, ARRAY[$1::text, 'passed'], to_jsonb($2::bigint));

-- name: oldest_records
-- The accounts of the oldest records of before a time.
SELECT did, time, seq FROM live.records WHERE time < $1 ORDER BY time LIMIT 20000;

-- name: lock_live
-- Every worker waits, before it has written anything, and whoever is in the middle is waited for.
LOCK TABLE live.sink_offsets IN EXCLUSIVE MODE;

-- name: lock_rebuilt
LOCK TABLE rebuilt.sink_offsets IN EXCLUSIVE MODE;

-- name: live_positions
SELECT partition, next_offset, topic_id FROM live.sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: rebuilt_positions
SELECT partition, next_offset, topic_id FROM rebuilt.sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: compare_records
SELECT did, collection, rkey, l.rev AS live_rev, r.rev AS rev, l.time, l.seq,
       CASE WHEN r.rev IS NULL THEN 'missing' WHEN l.rev IS NULL THEN 'new'
            WHEN r.rev < l.rev THEN 'older' WHEN r.rev > l.rev THEN 'newer' ELSE 'different' END AS kind,
       concat_ws(', ', CASE WHEN l.cid IS DISTINCT FROM r.cid THEN 'cid' END,
                 CASE WHEN l.record IS DISTINCT FROM r.record THEN 'record' END,
                 CASE WHEN l.seq IS DISTINCT FROM r.seq THEN 'seq' END,
                 CASE WHEN l.time IS DISTINCT FROM r.time THEN 'time' END) AS columns,
       CASE WHEN r.rev IS NULL OR r.rev < l.rev
            THEN coalesce((SELECT a.purged_rev FROM rebuilt.actors AS a WHERE a.did = l.did) >= l.rev, false)
            ELSE false END AS purged
FROM live.records AS l FULL JOIN rebuilt.records AS r USING (did, collection, rkey)
WHERE l.rev IS NULL OR r.rev IS NULL OR l.rev <> r.rev OR l.cid IS DISTINCT FROM r.cid
   OR l.record IS DISTINCT FROM r.record OR l.seq IS DISTINCT FROM r.seq OR l.time <> r.time;

-- name: compare_actors
-- `older`: an event of the account is in the live schema and not in the rebuilt one; `time` and `seq` are its.
SELECT did, NULL AS collection, NULL AS rkey, l.status AS live_rev, r.status AS rev,
       CASE WHEN o.handle THEN l.handle_time WHEN o.account THEN l.account_time ELSE l.sync_time END AS time,
       CASE WHEN o.handle THEN l.handle_seq WHEN o.account THEN l.account_seq ELSE l.sync_seq END AS seq,
       CASE WHEN r.did IS NULL THEN 'missing' WHEN l.did IS NULL THEN 'new'
            WHEN o.handle OR o.account OR o.sync THEN 'older' WHEN n.newer THEN 'newer' ELSE 'different' END AS kind,
       concat_ws(', ', CASE WHEN l.handle IS DISTINCT FROM r.handle THEN 'handle' END,
                 CASE WHEN (l.active, l.status) IS DISTINCT FROM (r.active, r.status) THEN 'status' END,
                 CASE WHEN l.purged_rev IS DISTINCT FROM r.purged_rev THEN 'purged_rev' END,
                 CASE WHEN l.stale_rev IS DISTINCT FROM r.stale_rev THEN 'stale_rev' END,
                 CASE WHEN (l.handle_sequence, l.handle_time, l.handle_seq, l.account_sequence, l.account_time, l.account_seq,
                            l.sync_sequence, l.sync_time, l.sync_seq, l.purged_at, l.deleted_seq, l.deleted_rev)
                   IS DISTINCT FROM
                           (r.handle_sequence, r.handle_time, r.handle_seq, r.account_sequence, r.account_time, r.account_seq,
                            r.sync_sequence, r.sync_time, r.sync_seq, r.purged_at, r.deleted_seq, r.deleted_rev)
                      THEN 'times' END) AS columns,
       false AS purged
FROM live.actors AS l FULL JOIN rebuilt.actors AS r USING (did)
CROSS JOIN LATERAL (
    SELECT l.handle_time IS NOT NULL AND live.is_later(
               l.handle_sequence, l.handle_seq, l.handle_time, r.handle_sequence, r.handle_seq, r.handle_time) AS handle,
           l.account_time IS NOT NULL AND live.is_later(
               l.account_sequence, l.account_seq, l.account_time, r.account_sequence, r.account_seq, r.account_time) AS account,
           l.sync_time IS NOT NULL AND live.is_later(
               l.sync_sequence, l.sync_seq, l.sync_time, r.sync_sequence, r.sync_seq, r.sync_time) AS sync
) AS o
CROSS JOIN LATERAL (
    SELECT greatest(r.handle_time, r.account_time, r.sync_time)
         > coalesce(greatest(l.handle_time, l.account_time, l.sync_time), '-infinity') AS newer
) AS n
WHERE l.did IS NULL OR r.did IS NULL
   OR (l.handle, l.handle_sequence, l.handle_time, l.handle_seq, l.active, l.status, l.account_sequence, l.account_time,
       l.account_seq, l.purged_rev, l.purged_at, l.deleted_seq, l.deleted_rev, l.stale_rev, l.sync_sequence, l.sync_time,
       l.sync_seq)
      IS DISTINCT FROM
      (r.handle, r.handle_sequence, r.handle_time, r.handle_seq, r.active, r.status, r.account_sequence, r.account_time,
       r.account_seq, r.purged_rev, r.purged_at, r.deleted_seq, r.deleted_rev, r.stale_rev, r.sync_sequence, r.sync_time,
       r.sync_seq);

-- name: compare_counts
-- How many rows each table has in both, and how many keys only one of them has (of the topic, where a row names one).
SELECT 'records' AS name, (SELECT count(*) FROM live.records) AS live, (SELECT count(*) FROM rebuilt.records) AS rebuilt,
       0::bigint AS only_live, 0::bigint AS only_rebuilt
UNION ALL
SELECT 'actors', (SELECT count(*) FROM live.actors), (SELECT count(*) FROM rebuilt.actors), 0, 0
UNION ALL
SELECT 'dead_letters', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.dead_letters WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.dead_letters WHERE topic = $1) AS r USING (partition, "offset")
UNION ALL
SELECT 'gaps', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.gaps WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.gaps WHERE topic = $1) AS r USING (partition, "offset")
UNION ALL
SELECT 'runs', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.runs WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.runs WHERE topic = $1) AS r USING (run);

-- name: views_to_carry
-- Views that only the live schema has, in the order in which they were made; our search_path is that schema.
SELECT c.relname AS name, c.relkind = 'm' AS materialized, pg_get_viewdef(c.oid) AS definition,
       array_to_string(c.reloptions, ', ') AS options, obj_description(c.oid, 'pg_class') AS comment,
       ARRAY (SELECT format('COMMENT ON COLUMN %I.%I IS %L', c.relname, a.attname, d.description)
              FROM pg_description AS d JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
              WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0) AS comments
FROM pg_class AS c
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('v', 'm')
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
ORDER BY c.oid;

-- name: indexes_to_carry
-- Indexes that only the live schema has and that belong to no constraint and to no partitioned index.
SELECT c.relname AS name, replace(pg_get_indexdef(c.oid, 0, true), ' ON ONLY ', ' ON ') AS definition
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'live'::regnamespace AND i.indisvalid AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid)
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
ORDER BY c.oid;

-- name: aggregates_to_fill
-- Materialized views that hold something in the live schema and nothing in the rebuilt one.
SELECT c.relname AS name FROM pg_class AS c JOIN pg_class AS n ON n.relname = c.relname
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind = 'm' AND c.relispopulated
  AND n.relnamespace = 'rebuilt'::regnamespace AND n.relkind = 'm' AND NOT n.relispopulated
ORDER BY c.oid;

-- name: strangers
-- What stands in the live schema, is not ours, and would stay behind.
SELECT pg_describe_object('pg_class'::regclass, c.oid, 0) AS what
FROM pg_class AS c
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'f', 'c') AND c.relname <> 'rebuild_state'
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
UNION ALL
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
FROM pg_proc AS p
WHERE p.pronamespace = 'live'::regnamespace AND NOT EXISTS (
    SELECT FROM pg_proc AS n WHERE n.pronamespace = 'rebuilt'::regnamespace AND n.proname = p.proname
       AND n.proargtypes = p.proargtypes)
UNION ALL
SELECT pg_describe_object('pg_type'::regclass, t.oid, 0)
FROM pg_type AS t
WHERE t.typnamespace = 'live'::regnamespace AND t.typtype IN ('d', 'e', 'r')
UNION ALL
SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0)
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'live'::regnamespace AND NOT t.tgisinternal AND t.tgparentid = 0
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, p.oid, 0)
FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid WHERE c.relnamespace = 'live'::regnamespace
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, a.attrelid, a.attnum)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_class AS n ON n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relname <> 'rebuild_state'
  AND NOT EXISTS (SELECT FROM pg_attribute AS b WHERE b.attrelid = n.oid AND b.attname = a.attname AND NOT b.attisdropped)
ORDER BY 1;

-- name: dependents
-- What stands outside the live schema and is bound to what stands in it: a rename would leave it with the old rows.
WITH ours AS (
    SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE relnamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_namespace'::regclass, 'live'::regnamespace::oid
), bound AS (
    SELECT DISTINCT d.classid, d.objid, d.objsubid, r.ev_class, coalesce(
        c.relnamespace, p.pronamespace, y.typnamespace, k.connamespace,
        (SELECT v.relnamespace FROM pg_class AS v WHERE v.oid = coalesce(r.ev_class, a.adrelid, t.tgrelid, o.polrelid))
    ) AS namespace
    FROM pg_depend AS d JOIN ours ON ours.class = d.refclassid AND ours.oid = d.refobjid
    LEFT JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_type AS y ON d.classid = 'pg_type'::regclass AND y.oid = d.objid
    LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_attrdef AS a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_trigger AS t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    LEFT JOIN pg_policy AS o ON d.classid = 'pg_policy'::regclass AND o.oid = d.objid
)
SELECT DISTINCT CASE WHEN ev_class IS NULL THEN pg_describe_object(classid, objid, objsubid)
                     ELSE pg_describe_object('pg_class'::regclass, ev_class, 0) END AS what
FROM bound
WHERE namespace IS DISTINCT FROM 'live'::regnamespace AND namespace IS DISTINCT FROM 'pg_toast'::regnamespace
  AND classid NOT IN (SELECT oid FROM pg_class WHERE relname IN ('pg_statistic_ext', 'pg_init_privs', 'pg_default_acl'))
ORDER BY 1;

-- name: grants
-- The statements that give the rebuilt schema's objects the owners and the rights of the live one's.
WITH objects AS (
    SELECT 'SCHEMA' AS kind, format('%I', n.nspname) AS name, '' AS part, l.nspacl AS acl, l.nspowner AS owner,
           n.nspowner AS held
    FROM pg_namespace AS l, pg_namespace AS n
    WHERE l.oid = 'live'::regnamespace AND n.oid = 'rebuilt'::regnamespace
    UNION ALL
    SELECT 'TABLE', n.oid::regclass::text, '', l.relacl, l.relowner, n.relowner
    FROM pg_class AS l JOIN pg_class AS n USING (relname)
    WHERE l.relnamespace = 'live'::regnamespace AND n.relnamespace = 'rebuilt'::regnamespace
      AND l.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT 'TABLE', n.oid::regclass::text, format(' (%I)', a.attname), a.attacl, l.relowner, l.relowner
    FROM pg_class AS l JOIN pg_class AS n USING (relname) JOIN pg_attribute AS a ON a.attrelid = l.oid
    WHERE l.relnamespace = 'live'::regnamespace AND n.relnamespace = 'rebuilt'::regnamespace
      AND l.relkind IN ('r', 'p', 'v', 'm') AND a.attacl IS NOT NULL
    UNION ALL
    SELECT 'FUNCTION', n.oid::regprocedure::text, '', l.proacl, l.proowner, n.proowner
    FROM pg_proc AS l JOIN pg_proc AS n USING (proname, proargtypes)
    WHERE l.pronamespace = 'live'::regnamespace AND n.pronamespace = 'rebuilt'::regnamespace
)
SELECT format('ALTER %s %s OWNER TO %I', kind, name, pg_get_userbyid(owner)) AS statement, 1 AS step
FROM objects WHERE owner <> held
UNION ALL
SELECT format('REVOKE ALL ON %s %s FROM PUBLIC', kind, name), 2 FROM objects WHERE acl IS NOT NULL AND part = ''
UNION ALL
SELECT format('GRANT %s%s ON %s %s TO %s%s', g.privilege_type, part, kind, name,
              CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
              CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), 3
FROM objects CROSS JOIN LATERAL aclexplode(acl) AS g WHERE g.grantee <> owner
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA rebuilt GRANT %s ON %s TO %s%s', pg_get_userbyid(d.defaclrole),
              g.privilege_type,
              CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END,
              CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
              CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), 4
FROM pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS g
WHERE d.defaclnamespace = 'live'::regnamespace
ORDER BY step;

-- name: carry_dead_letters
-- Those of other topics, and those of before what the rebuild has read: all others it has met itself, if they still are any.
INSERT INTO rebuilt.dead_letters ({columns})
SELECT {columns} FROM live.dead_letters AS d
WHERE (d.topic <> $1 OR d."offset" < (
           SELECT greatest((b.begin ->> 'offset')::bigint, (b.begin ->> 'passed')::bigint)
           FROM rebuilt.rebuild_state AS s CROSS JOIN LATERAL (SELECT s.begins -> d.partition::text AS begin) AS b))
  AND NOT EXISTS (SELECT FROM rebuilt.actors AS a
                  WHERE a.did = d.did AND (d.time <= a.purged_at OR (d.time IS NULL AND a.status = 'deleted')))
ON CONFLICT DO NOTHING;

-- name: carry_cursor_runs
-- So that the cursor knows which runs were allowed to set it back already.
INSERT INTO rebuilt.cursor_runs AS held (service, run) SELECT service, run FROM live.cursor_runs
ON CONFLICT (service) DO UPDATE SET run = excluded.run;

-- name: carry_pauses
INSERT INTO rebuilt.pauses SELECT * FROM live.pauses ON CONFLICT DO NOTHING;

-- name: rename_live_group
-- In the schema that is kept: whoever was waiting for its rows finds none of the live group's, and seeks anew.
UPDATE live.sink_offsets SET consumer_group = $3 WHERE topic = $1 AND consumer_group = $2;

-- name: rename_rebuilt_group
UPDATE rebuilt.sink_offsets SET consumer_group = $3 WHERE topic = $1 AND consumer_group = $2;

-- name: keep_rebuild_state
-- The kept schema can be brought back by a rebuild of its name: it goes on from its own positions.
UPDATE live.rebuild_state SET consumer_group = $1, seed = true, seeded = true, begins = '{}'::jsonb;

-- name: beat
-- A process says that it is there. The rows of processes that were last seen a week ago go.
WITH old AS (
    DELETE FROM processes AS p
    WHERE p.topic = $3 AND p.consumer_group = $4 AND p.id <> $1 AND p.seen_at < now() - interval '7 days'
)
INSERT INTO processes AS p (id, kind, topic, consumer_group, host, pid, version, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), state = excluded.state;

-- name: last_beat
UPDATE processes SET seen_at = now(), ended_at = now() WHERE id = $1;

-- name: processes
-- The processes of a deployment, the newest first: those that are there, and the last of each kind that is not.
-- An ingest belongs to the topic: every group sees it.
SELECT p.id, p.kind, p.host, p.pid, p.version, p.started_at, p.seen_at, p.ended_at, p.state::text AS state,
       p.ended_at IS NULL AND p.seen_at > now() - make_interval(secs => $3) AS alive,
       extract(epoch FROM now() - p.seen_at)::float8 AS seconds_ago
FROM processes AS p
WHERE p.topic = $1 AND (p.consumer_group = $2 OR p.kind = 'ingest')
ORDER BY alive DESC, p.seen_at DESC
LIMIT 100;

-- name: count_workers
SELECT count(*) FROM processes
WHERE topic = $1 AND consumer_group = $2 AND kind = 'worker'
  AND ended_at IS NULL AND seen_at > now() - make_interval(secs => $3);

-- name: pause_of
SELECT ingest, reason, asked_by, asked_at FROM pauses WHERE topic = $1 AND consumer_group = $2;

-- name: add_pause
INSERT INTO pauses AS p (topic, consumer_group, ingest, reason, asked_by) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (topic, consumer_group) DO UPDATE
SET ingest = excluded.ingest, reason = excluded.reason, asked_by = excluded.asked_by, asked_at = now();

-- name: end_pause
DELETE FROM pauses WHERE topic = $1 AND consumer_group = $2 RETURNING asked_at, reason;

-- Of the status: once a second, whatever the schema holds.

-- name: status_runs
-- The newest run, and the newest that did not merely resume.
(SELECT run, relay, mode, days, asked_from, oldest_time, head_time FROM runs WHERE topic = $1 ORDER BY run DESC LIMIT 1)
UNION ALL
(SELECT run, relay, mode, days, asked_from, oldest_time, head_time FROM runs
 WHERE topic = $1 AND mode <> 'resume' ORDER BY run DESC LIMIT 1);

-- name: status_counts
-- Dead letters: counted up to 100,000, estimated beyond.
SELECT CASE WHEN counted.letters < 100000 THEN counted.letters
            ELSE greatest(counted.letters, (SELECT reltuples::bigint FROM pg_class WHERE oid = 'dead_letters'::regclass))
            END AS dead_letters,
       (SELECT count(*) FROM gaps WHERE topic = $1) AS gaps
FROM (SELECT count(*) AS letters FROM (SELECT FROM dead_letters WHERE topic = $1 LIMIT 100000) AS letters) AS counted;

-- name: status_letters
-- The last of each partition by the primary key, and of these the newest.
SELECT l.partition, l."offset", l.created_at, l.did, l.collection, l.reason
FROM (SELECT DISTINCT partition FROM sink_offsets WHERE topic = $1) AS p
CROSS JOIN LATERAL (
    SELECT d.partition, d."offset", d.created_at, d.did, d.collection, left(d.reason, 200) AS reason
    FROM dead_letters AS d WHERE d.topic = $1 AND d.partition = p.partition ORDER BY d."offset" DESC LIMIT $2
) AS l
ORDER BY l.created_at DESC, l.partition, l."offset" DESC LIMIT $2;

-- name: status_gaps
SELECT from_time, to_time, left(reason, 200) AS reason, created_at, kind
FROM gaps WHERE topic = $1 ORDER BY created_at DESC, partition, "offset" DESC LIMIT 200;

-- name: doctor
SELECT current_setting('server_version') AS version,
       clock_timestamp() AS now,
       pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::boolean AS read_only,
       (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()) AS encoding,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       has_schema_privilege('public', 'CREATE') AS may_public,
       coalesce(has_schema_privilege(to_regnamespace(quote_ident($1))::oid, 'USAGE'), false)
           AND coalesce(has_table_privilege(to_regclass(quote_ident($1) || '.sink_offsets')::oid, 'INSERT, UPDATE'), false) AS may_write,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::integer AS free,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal,
       pg_size_bytes(current_setting('shared_buffers')) AS buffers;
