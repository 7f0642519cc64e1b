-- What `status`, `doctor`, the pages and `gaps` ask.

-- name: sink_positions
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

-- name: status_runs
-- The newest run, and the newest that did not merely resume. The status_ queries run once a second, whatever the schema holds.
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
       current_setting('wal_compression') AS wal_compression,
       pg_size_bytes(current_setting('shared_buffers')) AS buffers;
