-- The write path, faster: columns come as joined texts, rows that are expected to be new are inserted plainly, and what is held
-- already is left out first. `apply_batch` stays for workers of older versions, and for batches that are searched for bad rows.

-- True where a version of a record replaces the one that is held: the highest rev wins, on a tie the one that comes now.
CREATE FUNCTION replaces(new_rev text, new_cid text, held_rev text, held_cid text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN new_rev > held_rev COLLATE "C" OR (new_rev = held_rev COLLATE "C" AND new_cid IS DISTINCT FROM held_cid COLLATE "C");

-- True where one of these accounts was deleted: then each of its records is compared with that.
CREATE FUNCTION any_purged(p_dids text[]) RETURNS boolean
LANGUAGE plpgsql STABLE
-- A plan that was made while the table was small would read all of it, also when it has grown.
SET enable_seqscan = off
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM actors WHERE purged_rev IS NOT NULL AND did = ANY (p_dids));
END $$;

-- Records in key order, each key once: the highest rev wins, on a tie the one that comes now. What went with its account's
-- deletion stays away. Returns the versions written. What would change nothing is left out first: ON CONFLICT locks the row
-- that it does not change, and a lock is a write. Its own condition is for the version that another writer commits meanwhile.
CREATE OR REPLACE FUNCTION merge_records(
    dids text[], collections text[], rkeys text[], revs text[], cids text[], bodies text[], seqs bigint[], times bigint[]
) RETURNS bigint
LANGUAGE plpgsql
-- One look by the key for each row: never a plan that was right while the tables were small.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    purged  boolean := any_purged(dids);
    written bigint;
BEGIN
    INSERT INTO records AS held (did, collection, rkey, rev, cid, record, seq, time)
    SELECT new.did, new.collection, new.rkey, new.rev, new.cid, new.body::jsonb, new.seq, from_us(new.us)
    FROM (
        SELECT unnest(dids) AS did, unnest(collections) AS collection, unnest(rkeys) AS rkey, unnest(revs) AS rev,
               unnest(cids) AS cid, unnest(bodies) AS body, unnest(seqs) AS seq, unnest(times) AS us
    ) AS new
    WHERE NOT EXISTS (
        SELECT FROM records AS known
        WHERE known.did = new.did AND known.collection = new.collection AND known.rkey = new.rkey
          AND NOT replaces(new.rev, new.cid, known.rev, known.cid)
    )
    AND (NOT purged OR NOT EXISTS (
        SELECT FROM actors
        WHERE actors.did = new.did AND actors.purged_rev IS NOT NULL
          AND (actors.purged_rev >= new.rev OR (actors.deleted_rev >= new.rev AND actors.deleted_seq > new.seq))
    ))
    ON CONFLICT (did, collection, rkey) DO UPDATE
    SET rev = excluded.rev, cid = excluded.cid, record = excluded.record,
        seq = excluded.seq, time = excluded.time, indexed_at = excluded.indexed_at
    WHERE replaces(excluded.rev, excluded.cid, held.rev, held.cid);
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

-- Records in key order, each key once. Those that are expected to be new are inserted plainly; where one of them is held already,
-- all are merged, and `known` is true. Returns the versions written.
CREATE FUNCTION write_records(
    expected_new boolean, dids text[], collections text[], rkeys text[], revs text[], cids text[], bodies text[], seqs bigint[], times bigint[],
    OUT written bigint, OUT known boolean
)
LANGUAGE plpgsql AS $$
BEGIN
    known := false;
    IF expected_new AND NOT any_purged(dids) THEN
        BEGIN
            INSERT INTO records (did, collection, rkey, rev, cid, record, seq, time)
            SELECT unnest(dids), unnest(collections), unnest(rkeys), unnest(revs), unnest(cids), unnest(bodies)::jsonb,
                   unnest(seqs), from_us(unnest(times));
            GET DIAGNOSTICS written = ROW_COUNT;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            known := true;
        END;
    END IF;
    written := merge_records(dids, collections, rkeys, revs, cids, bodies, seqs, times);
END $$;

-- Hold a partition's position until the end of the transaction. Returns false where it does not stand at `p_base`: whoever else
-- wrote this partition held the row until it committed, and then the position is another.
CREATE FUNCTION hold_position(p_topic text, p_partition integer, p_group text, p_base bigint, p_topic_id text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    known_id text;
BEGIN
    SELECT o.topic_id INTO known_id FROM sink_offsets AS o
    WHERE o.topic = p_topic AND o.partition = p_partition AND o.consumer_group = p_group AND o.next_offset = p_base
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF known_id <> p_topic_id THEN
        RAISE EXCEPTION USING ERRCODE = 'AT001', MESSAGE = 'the topic was re-created';
    END IF;
    RETURN true;
END $$;

-- Deletions and syncs of a stage, then its account states. Returns the events that changed something.
CREATE FUNCTION apply_stage(p_stage jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    event   record;
    changed bigint := 0;
BEGIN
    FOR event IN
        SELECT * FROM jsonb_to_recordset(p_stage -> 'events') AS e (
            kind text, did text, sequence bigint, time bigint, seq bigint, rev text, until bigint, reach text)
    LOOP
        IF (CASE event.kind
            WHEN 'sync' THEN
                apply_sync(event.did, event.sequence, from_us(event.time), event.seq, event.rev)
            ELSE apply_deletion(event.did, event.sequence, from_us(event.time), event.seq, event.rev,
                                from_us(coalesce(event.until, event.time)), event.reach)
        END) THEN
            changed := changed + 1;
        END IF;
    END LOOP;
    IF p_stage ? 'accounts' THEN
        changed := changed + apply_accounts(p_stage -> 'accounts');
    END IF;
    RETURN changed;
END $$;

-- Dead letters, gaps and runs of a batch, then its position, watermark and counts. Takes the counts of its rows, returns those
-- of the batch and of the partition.
CREATE FUNCTION end_batch(
    p_topic text, p_partition integer, p_group text, p_next bigint, p_received bigint,
    p_topic_id text, p_run bigint, p_seq bigint, p_time bigint, p_extras jsonb,
    OUT next_offset bigint, OUT received bigint, OUT applied bigint, OUT skipped bigint, OUT dead bigint,
    INOUT batch_applied bigint, INOUT batch_dead bigint,
    OUT watermark_run bigint, OUT watermark_seq bigint, OUT watermark_time timestamptz
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
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

    -- A watermark of an older run (an ingest that had lost the topic) does not set back a newer one.
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
    RETURNING o.next_offset, o.received, o.applied, o.skipped, o.dead, o.watermark_run, o.watermark_seq, o.watermark_time
    INTO next_offset, received, applied, skipped, dead, watermark_run, watermark_seq, watermark_time;
END $$;

-- One batch, in order: (1) the fence, (2) handles, (3) stage by stage: deletions and syncs, account states, then the records
-- that stand between them and the next ones, (4) dead letters, gaps, runs, (5) position, watermark and counts.
-- Returns no row, and writes nothing, where the partition does not stand at `p_base`.
--
-- `p_extras` (NULL where there is nothing but records) holds all but the records: {"handles": […], "stages": [{"until": index of
-- its last record, "events": […], "accounts": […]}], "dead": […], "gaps": […], "runs": […], "odd_claims": n}.
--
-- A column comes as texts, each of which is split again here: for each stage one of the records that are expected to be new, then
-- one of the others, both in key order. Parts are joined by the unit separator (U+001F), those of numbers by a comma, and an
-- empty part is NULL. Records are UTF-8. `known` says that an expectation was wrong.
CREATE FUNCTION apply_joined(
    p_topic text, p_partition integer, p_group text, p_base bigint, p_next bigint, p_received bigint,
    p_topic_id text, p_run bigint, p_seq bigint, p_time bigint,
    p_dids text[], p_collections text[], p_rkeys text[], p_revs text[], p_cids text[], p_bodies bytea[],
    p_seqs text[], p_times text[], p_extras jsonb,
    OUT next_offset bigint, OUT received bigint, OUT applied bigint, OUT skipped bigint, OUT dead bigint,
    OUT batch_applied bigint, OUT batch_dead bigint,
    OUT watermark_run bigint, OUT watermark_seq bigint, OUT watermark_time timestamptz, OUT known boolean
) RETURNS SETOF record
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    unit  CONSTANT text := chr(31);
    stage jsonb;
    part  record;
BEGIN
    IF NOT hold_position(p_topic, p_partition, p_group, p_base, p_topic_id) THEN
        RETURN;
    END IF;
    known := false;
    batch_applied := 0;
    IF p_extras ? 'handles' THEN
        batch_applied := batch_applied + apply_handles(p_extras -> 'handles');
    END IF;

    FOR i IN 1..cardinality(p_dids) LOOP
        stage := CASE WHEN i % 2 = 1 THEN p_extras -> 'stages' -> (i / 2) END;
        IF stage IS NOT NULL THEN
            batch_applied := batch_applied + apply_stage(stage);
        END IF;
        CONTINUE WHEN p_dids[i] = '';
        SELECT * INTO part FROM write_records(
            i % 2 = 1, string_to_array(p_dids[i], unit), string_to_array(p_collections[i], unit),
            string_to_array(p_rkeys[i], unit), string_to_array(p_revs[i], unit), string_to_array(p_cids[i], unit, ''),
            string_to_array(convert_from(p_bodies[i], 'UTF8'), unit, ''),
            string_to_array(p_seqs[i], ',', '')::bigint[], string_to_array(p_times[i], ',')::bigint[]);
        batch_applied := batch_applied + part.written;
        known := known OR part.known;
    END LOOP;

    RETURN QUERY SELECT e.*, known FROM end_batch(
        p_topic, p_partition, p_group, p_next, p_received, p_topic_id, p_run, p_seq, p_time, p_extras,
        batch_applied, 0) AS e;
END $$;

-- The same for columns that come as arrays, in key order within each stage, of which `until` says where it ends. With
-- `p_payloads` (base64) and `p_offsets` the records are tried one by one.
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
    lo      integer := 1;
    hi      integer;
    stage   jsonb;
    n       bigint;
    refused bigint;
BEGIN
    IF NOT hold_position(p_topic, p_partition, p_group, p_base, p_topic_id) THEN
        RETURN;
    END IF;
    batch_applied := 0;
    batch_dead := 0;
    IF p_extras ? 'handles' THEN
        batch_applied := batch_applied + apply_handles(p_extras -> 'handles');
    END IF;

    FOR stage IN SELECT * FROM jsonb_array_elements(
        coalesce(p_extras -> 'stages', jsonb_build_array(jsonb_build_object('until', cardinality(p_dids))))
    ) LOOP
        batch_applied := batch_applied + apply_stage(stage);
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

    RETURN QUERY SELECT e.* FROM end_batch(
        p_topic, p_partition, p_group, p_next, p_received, p_topic_id, p_run, p_seq, p_time, p_extras,
        batch_applied, batch_dead) AS e;
END $$;
