-- Where the sink stands, as `firehose_cursor` and the operator see and set it.

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

-- name: lock_positions
-- In the order of the partitions; a worker holds one at a time.
SELECT partition, next_offset, applied, dead FROM sink_offsets
WHERE topic = $1 AND consumer_group = $2 ORDER BY partition FOR UPDATE;

-- name: move_back
-- Never forward: the rows are locked, and what lies between would be lost.
UPDATE sink_offsets AS o SET next_offset = moved.next_offset, updated_at = now()
FROM unnest($3::integer[], $4::bigint[]) AS moved (partition, next_offset)
WHERE o.topic = $1 AND o.consumer_group = $2 AND o.partition = moved.partition AND o.next_offset > moved.next_offset;
