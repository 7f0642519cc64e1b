-- What the processes of a deployment say of themselves about every two seconds, and what they were told: to wait.

-- A row is a process. It is down when it has ended (`ended_at`), or has not been seen for 10 s.
CREATE TABLE processes (
    id             uuid PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN ('worker', 'ingest')),
    topic          text COLLATE "C" NOT NULL,
    consumer_group text COLLATE "C" NOT NULL,
    host           text NOT NULL,
    pid            integer NOT NULL,
    version        text NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT now(),
    seen_at        timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz,
    state          jsonb NOT NULL
);

-- Where there is a row, the group's workers hold still (and the topic's ingest too, if `ingest`) until it is gone.
CREATE TABLE pauses (
    topic          text COLLATE "C" NOT NULL,
    consumer_group text COLLATE "C" NOT NULL,
    ingest         boolean NOT NULL DEFAULT false,
    reason         text NOT NULL DEFAULT '',
    asked_by       text NOT NULL,
    asked_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, consumer_group)
);
