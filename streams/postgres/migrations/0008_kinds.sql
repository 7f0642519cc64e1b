-- `kind`: what a gap or a dead letter is, in a word that programs read. `reason` is for people, and may change.

-- In the order in which `apply_batch` writes them: a worker in the middle of a slice is waited for, and waits for us.
ALTER TABLE dead_letters ADD COLUMN kind text COLLATE "C";
ALTER TABLE gaps ADD COLUMN kind text COLLATE "C";

-- The kind of a dead letter without one: of a row from before this migration, or of a message of an older ingest or worker.
-- Only the sink gives a letter a time: what it buries is a message, its key the DID. The ingest names the account of an operation,
-- and of a frame none; its letters are in partition 0.
CREATE FUNCTION kind_of_letter(p_partition integer, p_did text, p_time timestamptz, p_reason text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_time IS NOT NULL AND p_did IS NOT NULL AND p_reason <> 'not an event of ours: the key is not the DID' THEN 'message'
    WHEN p_time IS NOT NULL THEN 'foreign'
    WHEN p_did IS NOT NULL THEN 'operation'
    WHEN p_partition <> 0 OR p_reason LIKE 'not an event of ours%' THEN 'foreign'
    ELSE 'frame'
END;

-- The kind of a gap without one, in the same way.
CREATE FUNCTION kind_of_gap(p_reason text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_reason = 'the relay keeps no older events' THEN 'not_kept'
    WHEN p_reason LIKE 'not known: %' THEN 'not_known'
    WHEN p_reason LIKE 'the relay did not send these after a reconnect: %' THEN 'window_moved'
    WHEN p_reason LIKE 'the relay''s sequence was reset: %' THEN 'sequence_reset'
    WHEN p_reason LIKE 'behind what the last run has taken: %' THEN 'passed_over'
    WHEN p_reason LIKE '% lost the offsets % while it was copied' THEN 'lost_in_copy'
    WHEN p_reason LIKE 'the topic no longer holds the offsets %' THEN 'expired'
    ELSE 'other'
END;

UPDATE dead_letters SET kind = kind_of_letter(partition, did, time, reason);
UPDATE gaps SET kind = kind_of_gap(reason);

-- Write dead letters, but not those of an account that was deleted since, and those that we have. Returns the rows written.
-- A frame can be replayed as anybody's. The ingest's are in partition 0: another producer wrote those elsewhere.
CREATE OR REPLACE FUNCTION bury(p_topic text, p_partition integer, p_letters jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO dead_letters (topic, partition, "offset", seq, did, collection, rkey, time, reason, payload, kind)
    SELECT p_topic, p_partition, new."offset", new.seq, new.did, new.collection, new.rkey, from_us(new.time), new.reason,
           decode(new.payload, 'base64'),
           CASE WHEN new.kind = 'frame' AND p_partition <> 0 THEN 'foreign'
                ELSE coalesce(new.kind, kind_of_letter(p_partition, new.did, from_us(new.time), new.reason)) END
    FROM jsonb_to_recordset(p_letters) AS new ("offset" bigint, seq bigint, did text, collection text, rkey text,
                                               time bigint, reason text, payload text, kind text)
    WHERE NOT EXISTS (
        SELECT FROM actors
        WHERE actors.did = new.did
          AND (from_us(new.time) <= actors.purged_at OR (new.time IS NULL AND actors.status = 'deleted'))
    )
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

-- Write gaps of the relay's sequence. A worker of an older version passes on whatever text stands in `gap_kind`.
CREATE FUNCTION add_gaps(p_topic text, p_partition integer, p_gaps jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO gaps (topic, partition, "offset", relay, run, from_seq, to_seq, from_time, to_time, reason, kind)
    SELECT p_topic, p_partition, new."offset", new.relay, new.run, new.from_seq, new.to_seq,
           from_us(new.from_time), from_us(new.to_time), new.reason, coalesce(left(new.gap_kind, 40), kind_of_gap(new.reason))
    FROM jsonb_to_recordset(p_gaps) AS new (
        "offset" bigint, relay text, run bigint, from_seq bigint, to_seq bigint, from_time bigint, to_time bigint,
        reason text, gap_kind text)
    ON CONFLICT DO NOTHING;
$$;

-- One batch, in order: (1) the fence, (2) handles, (3) stage by stage: deletions and syncs, account states, then the records
-- that stand between them and the next ones, (4) dead letters, gaps, runs, (5) position, watermark and counts.
-- Returns no row, and writes nothing, where the partition does not stand at `p_base`.
--
-- The record arrays are in key order within each stage. `p_extras` (NULL where there is nothing but records) holds the rest:
-- {"handles": […], "stages": [{"until": index of its last record, "events": […], "accounts": […]}], "dead": […], "gaps": […],
-- "runs": […], "odd_claims": n}. With `p_payloads` (base64) and `p_offsets` the records are tried one by one.
CREATE OR REPLACE FUNCTION apply_batch(
    p_topic text, p_partition integer, p_group text, p_base bigint, p_next bigint, p_received bigint,
    p_topic_id text, p_run bigint, p_seq bigint, p_time bigint,
    p_dids text[], p_collections text[], p_rkeys text[], p_revs text[], p_cids text[], p_bodies text[],
    p_seqs bigint[], p_times bigint[],
    p_extras jsonb, p_offsets bigint[], p_payloads text[],
    OUT next_offset bigint, OUT received bigint, OUT applied bigint, OUT skipped bigint, OUT dead bigint,
    OUT batch_applied bigint, OUT batch_dead bigint,
    OUT watermark_run bigint, OUT watermark_seq bigint, OUT watermark_time timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    known_id text;
    lo       integer := 1;
    hi       integer;
    stage    jsonb;
    event    record;
    n        bigint;
    refused  bigint;
BEGIN
    -- (1) Whoever else wrote this partition holds this row until it commits; then the position is another.
    SELECT o.topic_id INTO known_id FROM sink_offsets AS o
    WHERE o.topic = p_topic AND o.partition = p_partition AND o.consumer_group = p_group AND o.next_offset = p_base
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF known_id <> p_topic_id THEN
        RAISE EXCEPTION USING ERRCODE = 'AT001', MESSAGE = 'the topic was re-created';
    END IF;
    batch_applied := 0;
    batch_dead := 0;

    -- (2)
    IF p_extras ? 'handles' THEN
        batch_applied := batch_applied + apply_handles(p_extras -> 'handles');
    END IF;

    -- (3)
    IF p_payloads IS NULL AND p_extras -> 'stages' IS NULL THEN
        batch_applied := batch_applied
            + merge_records(p_dids, p_collections, p_rkeys, p_revs, p_cids, p_bodies, p_seqs, p_times);
    ELSE
        FOR stage IN SELECT * FROM jsonb_array_elements(
            coalesce(p_extras -> 'stages', jsonb_build_array(jsonb_build_object('until', cardinality(p_dids))))
        ) LOOP
            FOR event IN
                SELECT * FROM jsonb_to_recordset(stage -> 'events') AS e (
                    kind text, did text, sequence bigint, time bigint, seq bigint, rev text, until bigint, reach text)
            LOOP
                IF (CASE event.kind
                    WHEN 'sync' THEN
                        apply_sync(event.did, event.sequence, from_us(event.time), event.seq, event.rev)
                    ELSE apply_deletion(event.did, event.sequence, from_us(event.time), event.seq, event.rev,
                                        from_us(coalesce(event.until, event.time)), event.reach)
                END) THEN
                    batch_applied := batch_applied + 1;
                END IF;
            END LOOP;

            IF stage ? 'accounts' THEN
                batch_applied := batch_applied + apply_accounts(stage -> 'accounts');
            END IF;

            hi := (stage -> 'until')::integer;
            IF p_payloads IS NOT NULL THEN
                SELECT m.applied, m.dead INTO n, refused FROM merge_one_by_one(
                    p_topic, p_partition, lo, hi,
                    p_dids, p_collections, p_rkeys, p_revs, p_cids, p_bodies, p_seqs, p_times, p_offsets, p_payloads) AS m;
                batch_applied := batch_applied + n;
                batch_dead := batch_dead + refused;
            ELSIF hi >= lo THEN
                batch_applied := batch_applied + merge_records(
                    p_dids[lo:hi], p_collections[lo:hi], p_rkeys[lo:hi], p_revs[lo:hi], p_cids[lo:hi], p_bodies[lo:hi],
                    p_seqs[lo:hi], p_times[lo:hi]);
            END IF;
            lo := hi + 1;
        END LOOP;
    END IF;

    -- (4)
    IF p_extras ? 'dead' THEN
        batch_dead := batch_dead + bury(p_topic, p_partition, p_extras -> 'dead');
    END IF;
    IF p_extras ? 'gaps' THEN
        PERFORM add_gaps(p_topic, p_partition, p_extras -> 'gaps');
    END IF;
    IF p_extras ? 'runs' THEN
        INSERT INTO runs (topic, run, topic_id, relay, mode, days, asked_from, oldest_seq, oldest_time, from_seq, head_seq,
                          head_time)
        SELECT p_topic, new.run, new.topic_id, new.relay, new.mode, new.days, from_us(new.asked_from), new.oldest_seq,
               from_us(new.oldest_time), new.from_seq, new.head_seq, from_us(new.head_time)
        FROM jsonb_to_recordset(p_extras -> 'runs') AS new (
            run bigint, topic_id text, relay text, mode text, days bigint, asked_from bigint, oldest_seq bigint,
            oldest_time bigint, from_seq bigint, head_seq bigint, head_time bigint)
        ON CONFLICT DO NOTHING;
    END IF;

    -- (5) A watermark of an older run (an ingest that had lost the topic) does not set back a newer one.
    RETURN QUERY
    UPDATE sink_offsets AS o
    SET next_offset = p_next, updated_at = now(),
        topic_id = coalesce(o.topic_id, p_topic_id),
        watermark_run = CASE WHEN mark.newer THEN p_run ELSE o.watermark_run END,
        watermark_seq = CASE WHEN mark.newer THEN p_seq ELSE o.watermark_seq END,
        watermark_time = CASE WHEN mark.newer THEN from_us(p_time) ELSE o.watermark_time END,
        received = o.received + p_received,
        applied = o.applied + batch_applied,
        dead = o.dead + batch_dead,
        skipped = o.skipped + p_received - batch_applied - batch_dead,
        odd_claims = o.odd_claims + coalesce((p_extras ->> 'odd_claims')::bigint, 0)
    FROM (
        SELECT p_run IS NOT NULL
           AND (s.watermark_run IS NULL OR (p_run, p_seq) >= (s.watermark_run, s.watermark_seq)) AS newer
        FROM sink_offsets AS s
        WHERE s.topic = p_topic AND s.partition = p_partition AND s.consumer_group = p_group
    ) AS mark
    WHERE o.topic = p_topic AND o.partition = p_partition AND o.consumer_group = p_group
    RETURNING o.next_offset, o.received, o.applied, o.skipped, o.dead, batch_applied, batch_dead,
              o.watermark_run, o.watermark_seq, o.watermark_time;
END $$;
