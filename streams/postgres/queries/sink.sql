-- What the sink and the worker write: slices, positions, processes and pauses.

-- name: apply_joined
-- One batch of one partition, or nothing (migrations/0009_joined.sql).
SELECT * FROM apply_joined(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19
);

-- name: apply_batch
-- The same with columns as arrays, and, where payloads come along, a dead letter for each record that Postgres refuses.
SELECT *, NULL::boolean AS known FROM apply_batch(
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
