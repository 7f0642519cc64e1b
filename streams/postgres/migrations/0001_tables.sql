-- The tables of the sink. Names are unqualified: the connection's search_path is the sink's schema, and a rebuilt schema
-- takes the live one's place by a rename. Text that is compared is COLLATE "C": revs sort byte by byte.

-- The last version of every record that was seen; a NULL `record` is a tombstone. The columns of fixed width come first.
CREATE TABLE records (
    seq        bigint,
    time       timestamptz NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT now(),
    did        text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    rkey       text COLLATE "C" NOT NULL,
    rev        text COLLATE "C" NOT NULL,
    cid        text COLLATE "C",
    record     jsonb,
    PRIMARY KEY (did, collection, rkey)
) PARTITION BY LIST (collection);

CREATE TABLE records_like PARTITION OF records FOR VALUES IN ('app.bsky.feed.like');
CREATE TABLE records_post PARTITION OF records FOR VALUES IN ('app.bsky.feed.post');
CREATE TABLE records_repost PARTITION OF records FOR VALUES IN ('app.bsky.feed.repost');
CREATE TABLE records_follow PARTITION OF records FOR VALUES IN ('app.bsky.graph.follow');
CREATE TABLE records_block PARTITION OF records FOR VALUES IN ('app.bsky.graph.block');
CREATE TABLE records_list_item PARTITION OF records FOR VALUES IN ('app.bsky.graph.listitem');
CREATE TABLE records_gate PARTITION OF records FOR VALUES IN ('app.bsky.feed.threadgate', 'app.bsky.feed.postgate');
-- Profiles are rewritten: room in the page keeps the new version beside the old one.
CREATE TABLE records_profile PARTITION OF records FOR VALUES IN ('app.bsky.actor.profile') WITH (fillfactor = 85);
CREATE TABLE records_other PARTITION OF records DEFAULT;

-- Accounts. The last event wins by (time, seq), for the handle, the status and the sync each on its own.
-- Records with a rev up to `purged_rev` went with a deletion; what we hold up to `stale_rev` was reset by a #sync.
CREATE TABLE actors (
    did          text COLLATE "C" PRIMARY KEY,
    handle       text,
    handle_time  timestamptz,
    handle_seq   bigint,
    active       boolean,
    status       text,
    account_time timestamptz,
    account_seq  bigint,
    purged_rev   text COLLATE "C",
    purged_at    timestamptz,
    stale_rev    text COLLATE "C",
    sync_time    timestamptz,
    sync_seq     bigint,
    hidden       boolean GENERATED ALWAYS AS (
        coalesce(status IN ('takendown', 'suspended', 'deactivated', 'deleted'), false)
        OR (NOT coalesce(active, true) AND coalesce(status NOT IN ('desynchronized', 'throttled'), true))
    ) STORED
) WITH (fillfactor = 90);
-- Asked for every record that is written.
CREATE INDEX actors_purged ON actors (did) INCLUDE (purged_rev) WHERE purged_rev IS NOT NULL;
CREATE INDEX actors_hidden ON actors (did) WHERE hidden;

-- What is applied, of each partition of the topic: moved in the transaction that applies it.
CREATE TABLE sink_offsets (
    topic          text COLLATE "C" NOT NULL,
    topic_id       text COLLATE "C",
    partition      integer NOT NULL,
    consumer_group text COLLATE "C" NOT NULL,
    next_offset    bigint NOT NULL,
    watermark_run  bigint,
    watermark_seq  bigint,
    watermark_time timestamptz,
    received       bigint NOT NULL DEFAULT 0,
    applied        bigint NOT NULL DEFAULT 0,
    skipped        bigint NOT NULL DEFAULT 0,
    dead           bigint NOT NULL DEFAULT 0,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, consumer_group),
    CONSTRAINT counts_add_up CHECK (received = applied + skipped + dead)
) WITH (fillfactor = 20);  -- rewritten with every batch: the versions stay in one page

-- Messages that could not become rows, and why. `payload` is the message (or the frame that the ingest could not decode).
CREATE TABLE dead_letters (
    topic      text COLLATE "C" NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint NOT NULL,
    seq        bigint,
    did        text COLLATE "C",
    collection text COLLATE "C",
    rkey       text COLLATE "C",
    time       timestamptz,
    reason     text NOT NULL,
    payload    bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "offset")
);
-- What the ingest sent twice is one dead letter, also where it could not read a seq.
CREATE UNIQUE INDEX dead_letters_event ON dead_letters (topic, partition, coalesce(seq, -1), md5(payload), md5(reason));
CREATE INDEX dead_letters_did ON dead_letters (did) WHERE did IS NOT NULL;

-- Stretches of a relay's sequence, or of the topic (`to_offset`), that are not held, and why.
CREATE TABLE gaps (
    topic      text COLLATE "C" NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint NOT NULL,
    to_offset  bigint,
    relay      text,
    run        bigint,
    from_seq   bigint,
    to_seq     bigint,
    from_time  timestamptz,
    to_time    timestamptz,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "offset")
);

-- Runs of the ingest: what was asked for, what the relay kept, where its head was. `run` is the start in µs.
CREATE TABLE runs (
    topic       text COLLATE "C" NOT NULL,
    run         bigint NOT NULL,
    topic_id    text NOT NULL,
    relay       text NOT NULL,
    mode        text NOT NULL,
    days        bigint NOT NULL,
    asked_from  timestamptz,
    oldest_seq  bigint,
    oldest_time timestamptz,
    from_seq    bigint NOT NULL,
    head_seq    bigint,
    head_time   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, run)
);

-- Records that are to be shown: no tombstones, none of accounts that are taken down, suspended, deactivated or deleted.
CREATE VIEW visible_records AS
SELECT r.* FROM records AS r
WHERE r.record IS NOT NULL AND NOT EXISTS (SELECT FROM actors AS a WHERE a.did = r.did AND a.hidden);
