-- Dead letters: found, counted, purged and replayed.

-- name: dead_letters_matching
-- The condition of the queries below. What is NULL is not asked for.
l.topic = $1
AND ($2::text IS NULL OR position(lower($2) IN lower(l.reason)) > 0)
AND ($3::text IS NULL OR l.did = $3)
AND ($4::text IS NULL OR l.collection = $4)
AND ($5::integer IS NULL OR l.partition = $5)
AND ($6::timestamptz IS NULL OR l.created_at >= $6)
AND ($7::timestamptz IS NULL OR l.created_at < $7);

-- name: count_letters
SELECT count(*), clock_timestamp() AS now FROM dead_letters AS l WHERE {dead_letters_matching};

-- name: list_letters
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.kind, l.reason, l.created_at,
       coalesce(octet_length(l.payload), 0) AS bytes
FROM dead_letters AS l WHERE {dead_letters_matching}
ORDER BY l.created_at DESC, l.partition, l."offset" DESC LIMIT $8;

-- name: summarize_letters
SELECT left(l.reason, 60) AS reason, count(*), min(l.created_at) AS first, max(l.created_at) AS last
FROM dead_letters AS l WHERE {dead_letters_matching}
GROUP BY 1 ORDER BY 2 DESC, 1;

-- name: partitions_of_letters
SELECT DISTINCT l.partition FROM dead_letters AS l WHERE {dead_letters_matching} ORDER BY 1;

-- name: purge_letters
WITH gone AS (
    DELETE FROM dead_letters AS d
    WHERE d.ctid = ANY (ARRAY(SELECT l.ctid FROM dead_letters AS l WHERE {dead_letters_matching} LIMIT $8 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: lock_letters
SELECT l.partition, l."offset", l.seq, l.did, l.collection, l.rkey, l.time, l.reason, l.payload, l.created_at, l.kind
FROM dead_letters AS l WHERE {dead_letters_matching} AND l."offset" > $8
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
INSERT INTO dead_letters (topic, partition, "offset", seq, reason, payload, kind)
VALUES ($1, $2, $3, $4, left($5, 500), $6, $7) ON CONFLICT DO NOTHING RETURNING true;

-- name: count_replayed
UPDATE sink_offsets SET applied = $4, dead = $5, skipped = received - $4 - $5
WHERE topic = $1 AND partition = $2 AND consumer_group = $3;
