-- What was said of an account is ordered by the relay's sequence, not by the clocks of strangers.

-- Of one sequence of a relay (named by the run in which it began, in µs) the later seq is the later state. Of two, and of events
-- whose sequence is not known (NULL: written before this migration, or by a foreign producer), the believed time decides, then
-- the sequence. `*_time` is the newest believed time of the sequence's events; where the sequence is not known, the claimed one.
ALTER TABLE actors
    ADD COLUMN handle_sequence  bigint,
    ADD COLUMN account_sequence bigint,
    ADD COLUMN sync_sequence    bigint,
    -- A record with a lower seq than the deletion and a rev up to this one was overtaken by it, and went with it.
    ADD COLUMN deleted_seq      bigint,
    ADD COLUMN deleted_rev      text COLLATE "C";
-- #identity, #account and #sync whose claimed time is more than an hour from the time of their place in the stream.
ALTER TABLE sink_offsets ADD COLUMN odd_claims bigint NOT NULL DEFAULT 0;

DROP INDEX actors_purged;
CREATE INDEX actors_purged ON actors (did) INCLUDE (purged_rev, deleted_rev, deleted_seq) WHERE purged_rev IS NOT NULL;

-- What a wrong clock claimed by the old rule ends now: else it would hold until that time comes. A TID has 53 bits of µs and 10
-- of a clock id in 13 digits of base 32.
DO $$
DECLARE
    latest bigint := (extract(epoch FROM now()) * 1000000)::bigint * 1024 + 1023;
    tid    text := '';
BEGIN
    FOR digit IN 0..12 LOOP
        tid := substr('234567abcdefghijklmnopqrstuvwxyz', (latest >> (5 * digit) & 31)::integer + 1, 1) || tid;
    END LOOP;
    UPDATE actors
    SET handle_time = least(handle_time, now()), account_time = least(account_time, now()),
        sync_time = least(sync_time, now()), purged_at = least(purged_at, now()), purged_rev = least(purged_rev, tid)
    WHERE greatest(handle_time, account_time, sync_time, purged_at) > now() + interval '1 hour';
END $$;

-- Whether the event a is later than what is held, b (no time: nothing is held).
CREATE FUNCTION is_later(
    a_sequence bigint, a_seq bigint, a_time timestamptz, b_sequence bigint, b_seq bigint, b_time timestamptz
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN b_time IS NULL THEN true
    WHEN a_sequence = b_sequence THEN a_seq > b_seq
    ELSE (a_time, coalesce(a_sequence, 0), a_seq) > (b_time, coalesce(b_sequence, 0), b_seq)
END;

-- The time to hold with an event of one sequence beside others of it: a later seq is no earlier.
CREATE FUNCTION latest_time(
    a_sequence bigint, a_time timestamptz, b_sequence bigint, b_time timestamptz
) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN a_sequence = b_sequence THEN greatest(a_time, b_time) ELSE a_time END;

-- Records in key order, each key once: the highest rev wins, on a tie the one that comes now. What went with its account's
-- deletion stays away. Returns the versions written.
CREATE OR REPLACE FUNCTION merge_records(
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
    WHERE NOT EXISTS (
        SELECT FROM actors
        WHERE actors.did = new.did AND actors.purged_rev IS NOT NULL
          AND (actors.purged_rev >= new.rev OR (actors.deleted_rev >= new.rev AND actors.deleted_seq > new.seq))
    )
    ON CONFLICT (did, collection, rkey) DO UPDATE
    SET rev = excluded.rev, cid = excluded.cid, record = excluded.record,
        seq = excluded.seq, time = excluded.time, indexed_at = excluded.indexed_at
    WHERE excluded.rev > held.rev OR (excluded.rev = held.rev AND excluded.cid IS DISTINCT FROM held.cid);
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

-- Handles, each account once a sequence: the later event wins. Returns the rows changed.
CREATE FUNCTION apply_handles(p_handles jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    part    bigint;
    changed bigint := 0;
    n       bigint;
BEGIN
    FOR part IN  -- nearly always one: an account may not stand twice in a statement
        SELECT DISTINCT coalesce(sequence, 0) FROM jsonb_to_recordset(p_handles) AS new (sequence bigint) ORDER BY 1
    LOOP
        INSERT INTO actors AS held (did, handle, handle_sequence, handle_time, handle_seq)
        SELECT new.did, new.handle, new.sequence, from_us(new.time), new.seq
        FROM jsonb_to_recordset(p_handles) AS new (did text, handle text, sequence bigint, time bigint, seq bigint)
        WHERE coalesce(new.sequence, 0) = part
        ON CONFLICT (did) DO UPDATE
        SET (handle, handle_sequence, handle_seq, handle_time) = (
            SELECT CASE WHEN later THEN excluded.handle ELSE held.handle END,
                   CASE WHEN later THEN excluded.handle_sequence ELSE held.handle_sequence END,
                   CASE WHEN later THEN excluded.handle_seq ELSE held.handle_seq END,
                   latest_time(excluded.handle_sequence, excluded.handle_time, held.handle_sequence, held.handle_time)
            FROM is_later(excluded.handle_sequence, excluded.handle_seq, excluded.handle_time,
                          held.handle_sequence, held.handle_seq, held.handle_time) AS later
        )
        WHERE is_later(excluded.handle_sequence, excluded.handle_seq, excluded.handle_time,
                       held.handle_sequence, held.handle_seq, held.handle_time)
           OR (excluded.handle_sequence = held.handle_sequence AND excluded.handle_time > held.handle_time);
        GET DIAGNOSTICS n = ROW_COUNT;
        changed := changed + n;
    END LOOP;
    RETURN changed;
END $$;

-- States of accounts, each account once a sequence: the later event wins. Returns the rows changed.
CREATE FUNCTION apply_accounts(p_accounts jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    part    bigint;
    changed bigint := 0;
    n       bigint;
BEGIN
    FOR part IN
        SELECT DISTINCT coalesce(sequence, 0) FROM jsonb_to_recordset(p_accounts) AS new (sequence bigint) ORDER BY 1
    LOOP
        INSERT INTO actors AS held (did, active, status, account_sequence, account_time, account_seq)
        SELECT new.did, new.active, new.status, new.sequence, from_us(new.time), new.seq
        FROM jsonb_to_recordset(p_accounts)
            AS new (did text, active boolean, status text, sequence bigint, time bigint, seq bigint)
        WHERE coalesce(new.sequence, 0) = part
        ON CONFLICT (did) DO UPDATE
        SET (active, status, account_sequence, account_seq, account_time) = (
            SELECT CASE WHEN later THEN excluded.active ELSE held.active END,
                   CASE WHEN later THEN excluded.status ELSE held.status END,
                   CASE WHEN later THEN excluded.account_sequence ELSE held.account_sequence END,
                   CASE WHEN later THEN excluded.account_seq ELSE held.account_seq END,
                   latest_time(excluded.account_sequence, excluded.account_time, held.account_sequence, held.account_time)
            FROM is_later(excluded.account_sequence, excluded.account_seq, excluded.account_time,
                          held.account_sequence, held.account_seq, held.account_time) AS later
        )
        WHERE is_later(excluded.account_sequence, excluded.account_seq, excluded.account_time,
                       held.account_sequence, held.account_seq, held.account_time)
           OR (excluded.account_sequence = held.account_sequence AND excluded.account_time > held.account_time);
        GET DIAGNOSTICS n = ROW_COUNT;
        changed := changed + n;
    END LOOP;
    RETURN changed;
END $$;

DROP FUNCTION apply_deletion(text, timestamptz, bigint, text);
DROP FUNCTION apply_sync(text, timestamptz, bigint, text);

-- An account was deleted: its records go, and those with a rev up to `purged_rev` never come back. That is `p_rev`, the TID of
-- the event's time or, where that is earlier, of its place in the stream: a claim ahead of the stream reaches no further. And,
-- because a repository's clock may be ahead, too, the highest rev that stands before the event. Records of a lower seq with a
-- rev up to `p_reach`, a little later, were overtaken. An event that is older than the account's last one (a replay) knows no
-- more than `p_rev`. Dead letters go up to `p_until`. Returns whether it changed anything.
CREATE FUNCTION apply_deletion(
    p_did text, p_sequence bigint, p_time timestamptz, p_seq bigint, p_rev text, p_until timestamptz, p_reach text
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    held   actors%ROWTYPE;
    newest boolean;
    raised timestamptz;
    purge  text COLLATE "C" := p_rev;
BEGIN
    SELECT * INTO held FROM actors WHERE did = p_did FOR UPDATE;
    newest := is_later(p_sequence, p_seq, p_time, held.account_sequence, held.account_seq, held.account_time);
    raised := CASE WHEN newest OR p_sequence = held.account_sequence
                   THEN latest_time(p_sequence, p_time, held.account_sequence, held.account_time)
                   ELSE held.account_time END;
    IF newest THEN
        purge := greatest(purge, held.stale_rev, (SELECT max(rev) FROM records WHERE did = p_did));
    ELSIF held.purged_rev COLLATE "C" >= purge AND raised = held.account_time THEN
        RETURN false;
    END IF;
    purge := greatest(purge, held.purged_rev);
    INSERT INTO actors (did) VALUES (p_did) ON CONFLICT DO NOTHING;
    UPDATE actors
    SET purged_rev = purge, purged_at = greatest(purged_at, p_until),
        stale_rev = CASE WHEN stale_rev > purge THEN stale_rev END,
        active = CASE WHEN newest THEN false ELSE active END,
        status = CASE WHEN newest THEN 'deleted' ELSE status END,
        account_sequence = CASE WHEN newest THEN p_sequence ELSE account_sequence END,
        account_time = raised,
        account_seq = CASE WHEN newest THEN p_seq ELSE account_seq END,
        deleted_seq = CASE WHEN newest AND p_reach IS NOT NULL THEN greatest(deleted_seq, p_seq) ELSE deleted_seq END,
        deleted_rev = CASE WHEN newest AND p_reach IS NOT NULL THEN greatest(deleted_rev, p_reach) ELSE deleted_rev END
    WHERE did = p_did;
    DELETE FROM records WHERE did = p_did AND rev <= purge;
    DELETE FROM dead_letters WHERE did = p_did AND (time IS NULL OR time <= p_until);
    RETURN true;
END $$;

-- A repository was set to a rev. What we hold of it is stale only where that is newer than all of it. Returns whether the
-- event was the latest of its kind.
CREATE FUNCTION apply_sync(p_did text, p_sequence bigint, p_time timestamptz, p_seq bigint, p_rev text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    held  actors%ROWTYPE;
    stale boolean;
BEGIN
    SELECT * INTO held FROM actors WHERE did = p_did FOR UPDATE;
    IF NOT is_later(p_sequence, p_seq, p_time, held.sync_sequence, held.sync_seq, held.sync_time) THEN
        UPDATE actors SET sync_time = p_time WHERE did = p_did AND sync_sequence = p_sequence AND sync_time < p_time;
        RETURN false;
    END IF;
    SELECT max(rev) < p_rev INTO stale FROM records WHERE did = p_did;
    INSERT INTO actors (did) VALUES (p_did) ON CONFLICT DO NOTHING;
    UPDATE actors
    SET sync_sequence = p_sequence, sync_seq = p_seq,
        sync_time = latest_time(p_sequence, p_time, held.sync_sequence, held.sync_time),
        stale_rev = CASE WHEN stale THEN greatest(stale_rev, p_rev) ELSE stale_rev END
    WHERE did = p_did;
    RETURN true;
END $$;

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
