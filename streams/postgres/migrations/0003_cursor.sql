-- firehose_cursor is derived from sink_offsets. Several workers write it: one at a time, each from what it sees then.

-- The row's cursor as a number: decimal text, or the older form "seq|n"; NULL where it is neither.
CREATE FUNCTION cursor_seq(cursor_text text) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN cursor_text ~ '^\s*\d{1,18}\s*(\|.*)?$' THEN trim(split_part(cursor_text, '|', 1))::bigint END;

-- The run under which each row of firehose_cursor was written last: that table is not ours to change.
CREATE TABLE cursor_runs (
    service text COLLATE "C" PRIMARY KEY,
    run     bigint NOT NULL
);

-- Writes the lowest watermark over all partitions, if each has one of the same run. It goes back only where a run since the
-- last write was asked to (a restart), or had to (the relay's sequence was reset; another relay). Returns the row, or no row
-- where there is no common watermark.
CREATE FUNCTION write_cursor(p_topic text, p_group text, p_service text, p_partitions integer)
RETURNS TABLE (seq bigint, event_time timestamp, run bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    low  record;
    held bigint;
    back boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('firehose_cursor ' || p_service, 0));
    SELECT o.watermark_run AS run, o.watermark_seq AS seq, o.watermark_time AT TIME ZONE 'UTC' AS event_time,
           count(*) OVER () AS marked, min(o.watermark_run) OVER () = max(o.watermark_run) OVER () AS same_run
    INTO low
    FROM sink_offsets AS o
    WHERE o.topic = p_topic AND o.consumer_group = p_group AND o.partition < p_partitions AND o.watermark_run IS NOT NULL
    ORDER BY o.watermark_seq, o.watermark_time NULLS FIRST
    LIMIT 1;
    IF low IS NULL OR low.marked < p_partitions OR NOT low.same_run THEN
        RETURN;
    END IF;

    back := EXISTS (
        SELECT FROM runs AS r
        WHERE r.topic = p_topic AND r.mode IN ('restart', 'reset', 'overlap') AND r.run <= low.run
          AND (r.run = low.run OR r.run > coalesce((SELECT w.run FROM cursor_runs AS w WHERE w.service = p_service), 0)));
    SELECT cursor_seq(c.cursor) INTO held FROM public.firehose_cursor AS c WHERE c.service = p_service;
    IF FOUND THEN
        UPDATE public.firehose_cursor AS c
        SET cursor = low.seq::text, last_event_time = coalesce(low.event_time, c.last_event_time),
            updated_at = now() AT TIME ZONE 'UTC'
        WHERE c.service = p_service AND (back OR held IS NULL OR low.seq >= held);
    ELSE
        INSERT INTO public.firehose_cursor (service, cursor, last_event_time, updated_at)
        VALUES (p_service, low.seq::text, low.event_time, now() AT TIME ZONE 'UTC');
    END IF;
    INSERT INTO cursor_runs AS w (service, run) VALUES (p_service, low.run)
    ON CONFLICT (service) DO UPDATE SET run = excluded.run WHERE w.run <> excluded.run;
    RETURN QUERY
    SELECT cursor_seq(c.cursor), c.last_event_time, low.run FROM public.firehose_cursor AS c WHERE c.service = p_service;
END $$;
