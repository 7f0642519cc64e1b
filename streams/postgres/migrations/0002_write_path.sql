-- The write path: one call applies one batch of one partition, or nothing. A batch is made by streams/postgres/batch.py.

CREATE FUNCTION from_us(us bigint) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN timestamptz 'epoch' + us * interval '1 microsecond';

-- Records in key order, each key once: the highest rev wins, on a tie the one that comes now. What went with its account's
-- deletion stays away. Returns the versions written.
CREATE FUNCTION merge_records(
    dids text[], collections text[], rkeys text[], revs text[], cids text[], bodies text[], seqs bigint[], times bigint[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO records AS held (did, collection, rkey, rev, cid, record, seq, time)
    SELECT new.did, new.collection, new.rkey, new.rev, new.cid, new.body::jsonb, new.seq, from_us(new.us)
    FROM unnest(dids, collections, rkeys, revs, cids, bodies, seqs, times)
        AS new (did, collection, rkey, rev, cid, body, seq, us)
    WHERE NOT EXISTS (SELECT FROM actors WHERE actors.did = new.did AND actors.purged_rev >= new.rev)
    ON CONFLICT (did, collection, rkey) DO UPDATE
    SET rev = excluded.rev, cid = excluded.cid, record = excluded.record,
        seq = excluded.seq, time = excluded.time, indexed_at = excluded.indexed_at
    WHERE excluded.rev > held.rev OR (excluded.rev = held.rev AND excluded.cid IS DISTINCT FROM held.cid);
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

-- An account was deleted: its records go, and those with a rev up to `purged_rev` never come back. That is the TID of the
-- event's time; and, because a repository's clock may be ahead of the relay's, the highest rev that stands before the event.
-- An event that is older than the account's last one (a replay) knows no more than its time. Returns whether it changed anything.
CREATE FUNCTION apply_deletion(p_did text, p_time timestamptz, p_seq bigint, p_rev text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    held   actors%ROWTYPE;
    newest boolean;
    purge  text COLLATE "C" := p_rev;
BEGIN
    SELECT * INTO held FROM actors WHERE did = p_did FOR UPDATE;
    newest := held.account_time IS NULL OR (p_time, p_seq) > (held.account_time, held.account_seq);
    IF newest THEN
        purge := greatest(purge, held.stale_rev, (SELECT max(rev) FROM records WHERE did = p_did));
    ELSIF held.purged_rev COLLATE "C" >= purge THEN
        RETURN false;
    END IF;
    purge := greatest(purge, held.purged_rev);
    INSERT INTO actors (did) VALUES (p_did) ON CONFLICT DO NOTHING;
    UPDATE actors
    SET purged_rev = purge, purged_at = greatest(purged_at, p_time),
        stale_rev = CASE WHEN stale_rev > purge THEN stale_rev END,
        active = CASE WHEN newest THEN false ELSE active END,
        status = CASE WHEN newest THEN 'deleted' ELSE status END,
        account_time = CASE WHEN newest THEN p_time ELSE account_time END,
        account_seq = CASE WHEN newest THEN p_seq ELSE account_seq END
    WHERE did = p_did;
    DELETE FROM records WHERE did = p_did AND rev <= purge;
    DELETE FROM dead_letters WHERE did = p_did AND (time IS NULL OR time <= p_time);
    RETURN true;
END $$;

-- A repository was set to a rev. What we hold of it is stale only where that is newer than all of it. Returns whether the
-- event was the newest of its kind.
CREATE FUNCTION apply_sync(p_did text, p_time timestamptz, p_seq bigint, p_rev text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    held  actors%ROWTYPE;
    stale boolean;
BEGIN
    SELECT * INTO held FROM actors WHERE did = p_did FOR UPDATE;
    IF held.sync_time IS NOT NULL AND (p_time, p_seq) <= (held.sync_time, held.sync_seq) THEN
        RETURN false;
    END IF;
    SELECT max(rev) < p_rev INTO stale FROM records WHERE did = p_did;
    INSERT INTO actors (did) VALUES (p_did) ON CONFLICT DO NOTHING;
    UPDATE actors
    SET sync_time = p_time, sync_seq = p_seq,
        stale_rev = CASE WHEN stale THEN greatest(stale_rev, p_rev) ELSE stale_rev END
    WHERE did = p_did;
    RETURN true;
END $$;

-- Dead letters, but for those of an account that was deleted since, and those that we have. Returns the rows written.
CREATE FUNCTION bury(p_topic text, p_partition integer, p_letters jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    written bigint;
BEGIN
    INSERT INTO dead_letters (topic, partition, "offset", seq, did, collection, rkey, time, reason, payload)
    SELECT p_topic, p_partition, new."offset", new.seq, new.did, new.collection, new.rkey, from_us(new.time), new.reason,
           decode(new.payload, 'base64')
    FROM jsonb_to_recordset(p_letters) AS new ("offset" bigint, seq bigint, did text, collection text, rkey text,
                                               time bigint, reason text, payload text)
    WHERE NOT EXISTS (
        SELECT FROM actors
        WHERE actors.did = new.did
          AND (from_us(new.time) <= actors.purged_at OR (new.time IS NULL AND actors.status = 'deleted'))
    )
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

-- The records from `lo` to `hi` one by one: those that Postgres refuses become dead letters with its reason.
CREATE FUNCTION merge_one_by_one(
    p_topic text, p_partition integer, lo integer, hi integer,
    dids text[], collections text[], rkeys text[], revs text[], cids text[], bodies text[], seqs bigint[], times bigint[],
    offsets bigint[], payloads text[], OUT applied bigint, OUT dead bigint
)
LANGUAGE plpgsql AS $$
BEGIN
    applied := 0;
    dead := 0;
    FOR i IN lo..hi LOOP
        BEGIN
            applied := applied + merge_records(
                dids[i:i], collections[i:i], rkeys[i:i], revs[i:i], cids[i:i], bodies[i:i], seqs[i:i], times[i:i]);
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
            dead := dead + bury(p_topic, p_partition, jsonb_build_array(jsonb_build_object(
                'offset', offsets[i], 'seq', seqs[i], 'did', dids[i], 'collection', collections[i], 'rkey', rkeys[i],
                'time', times[i], 'reason', left('Postgres refuses the record: ' || SQLERRM, 500),
                'payload', payloads[i])));
        END;
    END LOOP;
END $$;

-- One batch, in order: (1) the fence, (2) handles, (3) stage by stage: deletions and syncs, account states, then the records
-- that stand between them and the next ones, (4) dead letters, gaps, runs, (5) position, watermark and counts.
-- Returns no row, and writes nothing, where the partition does not stand at `p_base`.
--
-- The record arrays are in key order within each stage. `p_extras` (NULL where there is nothing but records) holds the rest:
-- {"handles": […], "stages": [{"until": index of its last record, "events": […], "accounts": […]}], "dead": […], "gaps": […],
-- "runs": […]}. With `p_payloads` (base64) and `p_offsets` the records are tried one by one.
CREATE FUNCTION apply_batch(
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
        INSERT INTO actors AS held (did, handle, handle_time, handle_seq)
        SELECT new.did, new.handle, from_us(new.time), new.seq
        FROM jsonb_to_recordset(p_extras -> 'handles') AS new (did text, handle text, time bigint, seq bigint)
        ON CONFLICT (did) DO UPDATE
        SET handle = excluded.handle, handle_time = excluded.handle_time, handle_seq = excluded.handle_seq
        WHERE held.handle_time IS NULL
           OR (excluded.handle_time, excluded.handle_seq) > (held.handle_time, held.handle_seq);
        GET DIAGNOSTICS n = ROW_COUNT;
        batch_applied := batch_applied + n;
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
                SELECT * FROM jsonb_to_recordset(stage -> 'events') AS e (kind text, did text, time bigint, seq bigint, rev text)
            LOOP
                IF (CASE event.kind
                    WHEN 'sync' THEN apply_sync(event.did, from_us(event.time), event.seq, event.rev)
                    ELSE apply_deletion(event.did, from_us(event.time), event.seq, event.rev)
                END) THEN
                    batch_applied := batch_applied + 1;
                END IF;
            END LOOP;

            IF stage ? 'accounts' THEN
                INSERT INTO actors AS held (did, active, status, account_time, account_seq)
                SELECT new.did, new.active, new.status, from_us(new.time), new.seq
                FROM jsonb_to_recordset(stage -> 'accounts')
                    AS new (did text, active boolean, status text, time bigint, seq bigint)
                ON CONFLICT (did) DO UPDATE
                SET active = excluded.active, status = excluded.status,
                    account_time = excluded.account_time, account_seq = excluded.account_seq
                WHERE held.account_time IS NULL
                   OR (excluded.account_time, excluded.account_seq) > (held.account_time, held.account_seq);
                GET DIAGNOSTICS n = ROW_COUNT;
                batch_applied := batch_applied + n;
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
        INSERT INTO gaps (topic, partition, "offset", relay, run, from_seq, to_seq, from_time, to_time, reason)
        SELECT p_topic, p_partition, new."offset", new.relay, new.run, new.from_seq, new.to_seq,
               from_us(new.from_time), from_us(new.to_time), new.reason
        FROM jsonb_to_recordset(p_extras -> 'gaps') AS new (
            "offset" bigint, relay text, run bigint, from_seq bigint, to_seq bigint, from_time bigint, to_time bigint,
            reason text)
        ON CONFLICT DO NOTHING;
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
        skipped = o.skipped + p_received - batch_applied - batch_dead
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
