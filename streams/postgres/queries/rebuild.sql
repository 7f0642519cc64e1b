-- A rebuild, its comparison and its swap.
-- `live.` and `rebuilt.` stand for the names of two schemas: streams/maintenance/rebuild/schema.py:both puts them in.

-- name: lock_rebuild
-- One process fills a schema at a time.
SELECT pg_try_advisory_lock(hashtextextended('atproto-streams rebuild ' || $1, 0));

-- name: create_rebuild
CREATE TABLE IF NOT EXISTS rebuilt.rebuild_state (
    topic          text NOT NULL,
    consumer_group text NOT NULL,
    live           text NOT NULL,
    begins         jsonb NOT NULL,
    seed           boolean NOT NULL,
    seeded         boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- name: rebuild_there
-- Whether the schema exists, and whether it is a rebuild's.
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL AS there,
       to_regclass(quote_ident($1) || '.rebuild_state') IS NOT NULL AS begun,
       obj_description(to_regnamespace(quote_ident($1)), 'pg_namespace') AS comment;

-- name: rebuild_empty
SELECT NOT EXISTS (SELECT FROM rebuilt.sink_offsets) AND NOT EXISTS (SELECT FROM rebuilt.records);

-- name: rebuild_state
SELECT topic, consumer_group, live, begins, seed, seeded FROM rebuilt.rebuild_state;

-- name: add_rebuild
INSERT INTO rebuilt.rebuild_state (topic, consumer_group, live, begins, seed) VALUES ($1, $2, $3, $4, $5);

-- name: seed_columns
-- The columns of a table that both schemas have and that are not computed.
SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass('rebuilt.' || quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  AND EXISTS (SELECT FROM pg_attribute AS b
              WHERE b.attrelid = to_regclass('live.' || quote_ident($1)) AND b.attname = a.attname AND NOT b.attisdropped);

-- name: set_seeded
UPDATE rebuilt.rebuild_state SET seeded = true, begins = $1;

-- name: pass_over
-- What is before it in the partition stands in the seed, and is not read.
UPDATE rebuilt.rebuild_state SET begins = jsonb_set(begins, ARRAY[$1::text, 'passed'], to_jsonb($2::bigint));

-- name: oldest_records
-- The accounts of the oldest records of before a time.
SELECT did, time, seq FROM live.records WHERE time < $1 ORDER BY time LIMIT 20000;

-- name: lock_live
-- Every worker waits, before it has written anything, and whoever is in the middle is waited for.
LOCK TABLE live.sink_offsets IN EXCLUSIVE MODE;

-- name: lock_rebuilt
LOCK TABLE rebuilt.sink_offsets IN EXCLUSIVE MODE;

-- name: live_positions
SELECT partition, next_offset, topic_id FROM live.sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: rebuilt_positions
SELECT partition, next_offset, topic_id FROM rebuilt.sink_offsets WHERE topic = $1 AND consumer_group = $2;

-- name: compare_records
SELECT did, collection, rkey, l.rev AS live_rev, r.rev AS rev, l.time, l.seq,
       CASE WHEN r.rev IS NULL THEN 'missing' WHEN l.rev IS NULL THEN 'new'
            WHEN r.rev < l.rev THEN 'older' WHEN r.rev > l.rev THEN 'newer' ELSE 'different' END AS kind,
       concat_ws(', ', CASE WHEN l.cid IS DISTINCT FROM r.cid THEN 'cid' END,
                 CASE WHEN l.record IS DISTINCT FROM r.record THEN 'record' END,
                 CASE WHEN l.seq IS DISTINCT FROM r.seq THEN 'seq' END,
                 CASE WHEN l.time IS DISTINCT FROM r.time THEN 'time' END) AS columns,
       CASE WHEN r.rev IS NULL OR r.rev < l.rev
            THEN coalesce((SELECT a.purged_rev FROM rebuilt.actors AS a WHERE a.did = l.did) >= l.rev, false)
            ELSE false END AS purged
FROM live.records AS l FULL JOIN rebuilt.records AS r USING (did, collection, rkey)
WHERE l.rev IS NULL OR r.rev IS NULL OR l.rev <> r.rev OR l.cid IS DISTINCT FROM r.cid
   OR l.record IS DISTINCT FROM r.record OR l.seq IS DISTINCT FROM r.seq OR l.time <> r.time;

-- name: compare_actors
-- `older`: an event of the account is in the live schema and not in the rebuilt one; `time` and `seq` are its.
SELECT did, NULL AS collection, NULL AS rkey, l.status AS live_rev, r.status AS rev,
       CASE WHEN o.handle THEN l.handle_time WHEN o.account THEN l.account_time ELSE l.sync_time END AS time,
       CASE WHEN o.handle THEN l.handle_seq WHEN o.account THEN l.account_seq ELSE l.sync_seq END AS seq,
       CASE WHEN r.did IS NULL THEN 'missing' WHEN l.did IS NULL THEN 'new'
            WHEN o.handle OR o.account OR o.sync THEN 'older' WHEN n.newer THEN 'newer' ELSE 'different' END AS kind,
       concat_ws(', ', CASE WHEN l.handle IS DISTINCT FROM r.handle THEN 'handle' END,
                 CASE WHEN (l.active, l.status) IS DISTINCT FROM (r.active, r.status) THEN 'status' END,
                 CASE WHEN l.purged_rev IS DISTINCT FROM r.purged_rev THEN 'purged_rev' END,
                 CASE WHEN l.stale_rev IS DISTINCT FROM r.stale_rev THEN 'stale_rev' END,
                 CASE WHEN (l.handle_sequence, l.handle_time, l.handle_seq, l.account_sequence, l.account_time, l.account_seq,
                            l.sync_sequence, l.sync_time, l.sync_seq, l.purged_at, l.deleted_seq, l.deleted_rev)
                   IS DISTINCT FROM
                           (r.handle_sequence, r.handle_time, r.handle_seq, r.account_sequence, r.account_time, r.account_seq,
                            r.sync_sequence, r.sync_time, r.sync_seq, r.purged_at, r.deleted_seq, r.deleted_rev)
                      THEN 'times' END) AS columns,
       false AS purged
FROM live.actors AS l FULL JOIN rebuilt.actors AS r USING (did)
CROSS JOIN LATERAL (
    SELECT l.handle_time IS NOT NULL AND live.is_later(
               l.handle_sequence, l.handle_seq, l.handle_time, r.handle_sequence, r.handle_seq, r.handle_time) AS handle,
           l.account_time IS NOT NULL AND live.is_later(
               l.account_sequence, l.account_seq, l.account_time, r.account_sequence, r.account_seq, r.account_time) AS account,
           l.sync_time IS NOT NULL AND live.is_later(
               l.sync_sequence, l.sync_seq, l.sync_time, r.sync_sequence, r.sync_seq, r.sync_time) AS sync
) AS o
CROSS JOIN LATERAL (
    SELECT greatest(r.handle_time, r.account_time, r.sync_time)
         > coalesce(greatest(l.handle_time, l.account_time, l.sync_time), '-infinity') AS newer
) AS n
WHERE l.did IS NULL OR r.did IS NULL
   OR (l.handle, l.handle_sequence, l.handle_time, l.handle_seq, l.active, l.status, l.account_sequence, l.account_time,
       l.account_seq, l.purged_rev, l.purged_at, l.deleted_seq, l.deleted_rev, l.stale_rev, l.sync_sequence, l.sync_time,
       l.sync_seq)
      IS DISTINCT FROM
      (r.handle, r.handle_sequence, r.handle_time, r.handle_seq, r.active, r.status, r.account_sequence, r.account_time,
       r.account_seq, r.purged_rev, r.purged_at, r.deleted_seq, r.deleted_rev, r.stale_rev, r.sync_sequence, r.sync_time,
       r.sync_seq);

-- name: compare_counts
-- How many rows each table has in both, and how many keys only one of them has (of the topic, where a row names one).
SELECT 'records' AS name, (SELECT count(*) FROM live.records) AS live, (SELECT count(*) FROM rebuilt.records) AS rebuilt,
       0::bigint AS only_live, 0::bigint AS only_rebuilt
UNION ALL
SELECT 'actors', (SELECT count(*) FROM live.actors), (SELECT count(*) FROM rebuilt.actors), 0, 0
UNION ALL
SELECT 'dead_letters', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.dead_letters WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.dead_letters WHERE topic = $1) AS r USING (partition, "offset")
UNION ALL
SELECT 'gaps', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.gaps WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.gaps WHERE topic = $1) AS r USING (partition, "offset")
UNION ALL
SELECT 'runs', count(l.topic), count(r.topic),
       count(*) FILTER (WHERE r.topic IS NULL), count(*) FILTER (WHERE l.topic IS NULL)
FROM (SELECT * FROM live.runs WHERE topic = $1) AS l
FULL JOIN (SELECT * FROM rebuilt.runs WHERE topic = $1) AS r USING (run);

-- name: views_to_carry
-- Views that only the live schema has, in the order in which they were made; our search_path is that schema.
SELECT c.relname AS name, c.relkind = 'm' AS materialized, pg_get_viewdef(c.oid) AS definition,
       array_to_string(c.reloptions, ', ') AS options, obj_description(c.oid, 'pg_class') AS comment,
       ARRAY (SELECT format('COMMENT ON COLUMN %I.%I IS %L', c.relname, a.attname, d.description)
              FROM pg_description AS d JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
              WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0) AS comments
FROM pg_class AS c
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('v', 'm')
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
ORDER BY c.oid;

-- name: indexes_to_carry
-- Indexes that only the live schema has and that belong to no constraint and to no partitioned index.
SELECT c.relname AS name, replace(pg_get_indexdef(c.oid, 0, true), ' ON ONLY ', ' ON ') AS definition
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'live'::regnamespace AND i.indisvalid AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid)
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
ORDER BY c.oid;

-- name: aggregates_to_fill
-- Materialized views that hold something in the live schema and nothing in the rebuilt one.
SELECT c.relname AS name FROM pg_class AS c JOIN pg_class AS n ON n.relname = c.relname
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind = 'm' AND c.relispopulated
  AND n.relnamespace = 'rebuilt'::regnamespace AND n.relkind = 'm' AND NOT n.relispopulated
ORDER BY c.oid;

-- name: strangers
-- What stands in the live schema, is not ours, and would stay behind.
SELECT pg_describe_object('pg_class'::regclass, c.oid, 0) AS what
FROM pg_class AS c
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('r', 'p', 'S', 'f', 'c') AND c.relname <> 'rebuild_state'
  AND NOT EXISTS (SELECT FROM pg_class AS n WHERE n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname)
UNION ALL
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
FROM pg_proc AS p
WHERE p.pronamespace = 'live'::regnamespace AND NOT EXISTS (
    SELECT FROM pg_proc AS n WHERE n.pronamespace = 'rebuilt'::regnamespace AND n.proname = p.proname
       AND n.proargtypes = p.proargtypes)
UNION ALL
SELECT pg_describe_object('pg_type'::regclass, t.oid, 0)
FROM pg_type AS t
WHERE t.typnamespace = 'live'::regnamespace AND t.typtype IN ('d', 'e', 'r')
UNION ALL
SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0)
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'live'::regnamespace AND NOT t.tgisinternal AND t.tgparentid = 0
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, p.oid, 0)
FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid WHERE c.relnamespace = 'live'::regnamespace
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, a.attrelid, a.attnum)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_class AS n ON n.relnamespace = 'rebuilt'::regnamespace AND n.relname = c.relname
WHERE c.relnamespace = 'live'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relname <> 'rebuild_state'
  AND NOT EXISTS (SELECT FROM pg_attribute AS b WHERE b.attrelid = n.oid AND b.attname = a.attname AND NOT b.attisdropped)
ORDER BY 1;

-- name: dependents
-- What stands outside the live schema and is bound to what stands in it: a rename would leave it with the old rows.
WITH ours AS (
    SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE relnamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace = 'live'::regnamespace
    UNION ALL SELECT 'pg_namespace'::regclass, 'live'::regnamespace::oid
), bound AS (
    SELECT DISTINCT d.classid, d.objid, d.objsubid, r.ev_class, coalesce(
        c.relnamespace, p.pronamespace, y.typnamespace, k.connamespace,
        (SELECT v.relnamespace FROM pg_class AS v WHERE v.oid = coalesce(r.ev_class, a.adrelid, t.tgrelid, o.polrelid))
    ) AS namespace
    FROM pg_depend AS d JOIN ours ON ours.class = d.refclassid AND ours.oid = d.refobjid
    LEFT JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_type AS y ON d.classid = 'pg_type'::regclass AND y.oid = d.objid
    LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_attrdef AS a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_trigger AS t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    LEFT JOIN pg_policy AS o ON d.classid = 'pg_policy'::regclass AND o.oid = d.objid
)
SELECT DISTINCT CASE WHEN ev_class IS NULL THEN pg_describe_object(classid, objid, objsubid)
                     ELSE pg_describe_object('pg_class'::regclass, ev_class, 0) END AS what
FROM bound
WHERE namespace IS DISTINCT FROM 'live'::regnamespace AND namespace IS DISTINCT FROM 'pg_toast'::regnamespace
  AND classid NOT IN (SELECT oid FROM pg_class WHERE relname IN ('pg_statistic_ext', 'pg_init_privs', 'pg_default_acl'))
ORDER BY 1;

-- name: grants
-- The statements that give the rebuilt schema's objects the owners and the rights of the live one's.
WITH objects AS (
    SELECT 'SCHEMA' AS kind, format('%I', n.nspname) AS name, '' AS part, l.nspacl AS acl, l.nspowner AS owner,
           n.nspowner AS held
    FROM pg_namespace AS l, pg_namespace AS n
    WHERE l.oid = 'live'::regnamespace AND n.oid = 'rebuilt'::regnamespace
    UNION ALL
    SELECT 'TABLE', n.oid::regclass::text, '', l.relacl, l.relowner, n.relowner
    FROM pg_class AS l JOIN pg_class AS n USING (relname)
    WHERE l.relnamespace = 'live'::regnamespace AND n.relnamespace = 'rebuilt'::regnamespace
      AND l.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT 'TABLE', n.oid::regclass::text, format(' (%I)', a.attname), a.attacl, l.relowner, l.relowner
    FROM pg_class AS l JOIN pg_class AS n USING (relname) JOIN pg_attribute AS a ON a.attrelid = l.oid
    WHERE l.relnamespace = 'live'::regnamespace AND n.relnamespace = 'rebuilt'::regnamespace
      AND l.relkind IN ('r', 'p', 'v', 'm') AND a.attacl IS NOT NULL
    UNION ALL
    SELECT 'FUNCTION', n.oid::regprocedure::text, '', l.proacl, l.proowner, n.proowner
    FROM pg_proc AS l JOIN pg_proc AS n USING (proname, proargtypes)
    WHERE l.pronamespace = 'live'::regnamespace AND n.pronamespace = 'rebuilt'::regnamespace
)
SELECT format('ALTER %s %s OWNER TO %I', kind, name, pg_get_userbyid(owner)) AS statement, 1 AS step
FROM objects WHERE owner <> held
UNION ALL
SELECT format('REVOKE ALL ON %s %s FROM PUBLIC', kind, name), 2 FROM objects WHERE acl IS NOT NULL AND part = ''
UNION ALL
SELECT format('GRANT %s%s ON %s %s TO %s%s', g.privilege_type, part, kind, name,
              CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
              CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), 3
FROM objects CROSS JOIN LATERAL aclexplode(acl) AS g WHERE g.grantee <> owner
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA rebuilt GRANT %s ON %s TO %s%s', pg_get_userbyid(d.defaclrole),
              g.privilege_type,
              CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END,
              CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
              CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), 4
FROM pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS g
WHERE d.defaclnamespace = 'live'::regnamespace
ORDER BY step;

-- name: carry_dead_letters
-- Those of other topics, and those of before what the rebuild has read: all others it has met itself, if they still are any.
INSERT INTO rebuilt.dead_letters ({columns})
SELECT {columns} FROM live.dead_letters AS d
WHERE (d.topic <> $1 OR d."offset" < (
           SELECT greatest((b.begin ->> 'offset')::bigint, (b.begin ->> 'passed')::bigint)
           FROM rebuilt.rebuild_state AS s CROSS JOIN LATERAL (SELECT s.begins -> d.partition::text AS begin) AS b))
  AND NOT EXISTS (SELECT FROM rebuilt.actors AS a
                  WHERE a.did = d.did AND (d.time <= a.purged_at OR (d.time IS NULL AND a.status = 'deleted')))
ON CONFLICT DO NOTHING;

-- name: carry_cursor_runs
-- So that the cursor knows which runs were allowed to set it back already.
INSERT INTO rebuilt.cursor_runs AS held (service, run) SELECT service, run FROM live.cursor_runs
ON CONFLICT (service) DO UPDATE SET run = excluded.run;

-- name: carry_pauses
INSERT INTO rebuilt.pauses SELECT * FROM live.pauses ON CONFLICT DO NOTHING;

-- name: rename_live_group
-- In the schema that is kept: whoever was waiting for its rows finds none of the live group's, and seeks anew.
UPDATE live.sink_offsets SET consumer_group = $3 WHERE topic = $1 AND consumer_group = $2;

-- name: rename_rebuilt_group
UPDATE rebuilt.sink_offsets SET consumer_group = $3 WHERE topic = $1 AND consumer_group = $2;

-- name: keep_rebuild_state
-- The kept schema can be brought back by a rebuild of its name: it goes on from its own positions.
UPDATE live.rebuild_state SET consumer_group = $1, seed = true, seeded = true, begins = '{}'::jsonb;
