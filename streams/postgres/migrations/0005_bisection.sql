-- The records that Postgres refuses are found by halving, not by trying each.

-- The records from `lo` to `hi`, each key once: those that Postgres refuses become dead letters with its reason, one by one,
-- and the others are merged. A range is merged as a whole in a subtransaction; where that fails, its halves are, in order. Of
-- n records of which k are refused that takes at most 2k(log2(n/k) + 2) + 1 subtransactions, and never more than 2n: all in
-- the one transaction of the batch. Only errors that come of a row's own values are taken for its fault: every other error
-- (a full disk, a lock, a stopped server) ends the batch, which is repeated.
CREATE OR REPLACE FUNCTION merge_one_by_one(
    p_topic text, p_partition integer, lo integer, hi integer,
    dids text[], collections text[], rkeys text[], revs text[], cids text[], bodies text[], seqs bigint[], times bigint[],
    offsets bigint[], payloads text[], OUT applied bigint, OUT dead bigint
)
LANGUAGE plpgsql AS $$
DECLARE
    middle integer := (lo + hi) / 2;
    half   record;
BEGIN
    applied := 0;
    dead := 0;
    IF lo > hi THEN
        RETURN;
    END IF;
    BEGIN
        applied := merge_records(
            dids[lo:hi], collections[lo:hi], rkeys[lo:hi], revs[lo:hi], cids[lo:hi], bodies[lo:hi], seqs[lo:hi], times[lo:hi]);
        RETURN;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
        IF lo = hi THEN
            dead := bury(p_topic, p_partition, jsonb_build_array(jsonb_build_object(
                'offset', offsets[lo], 'seq', seqs[lo], 'did', dids[lo], 'collection', collections[lo], 'rkey', rkeys[lo],
                'time', times[lo], 'reason', left('Postgres refuses the record: ' || SQLERRM, 500),
                'payload', payloads[lo])));
            RETURN;
        END IF;
    END;
    -- Outside the handler: what is kept for a handled error would be kept at every depth.
    FOR half IN
        SELECT m.applied, m.dead
        FROM (VALUES (1, lo, middle), (2, middle + 1, hi)) AS part (number, first, last)
        CROSS JOIN LATERAL merge_one_by_one(
            p_topic, p_partition, part.first, part.last,
            dids, collections, rkeys, revs, cids, bodies, seqs, times, offsets, payloads) AS m
        ORDER BY part.number
    LOOP
        applied := applied + half.applied;
        dead := dead + half.dead;
    END LOOP;
END $$;
