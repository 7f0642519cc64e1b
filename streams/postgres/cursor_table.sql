-- The existing service's table, exactly; one that is there is used as it is.
CREATE TABLE IF NOT EXISTS public.firehose_cursor (
    id SERIAL PRIMARY KEY,
    service VARCHAR(255) NOT NULL UNIQUE,
    cursor TEXT,
    last_event_time TIMESTAMP,
    updated_at TIMESTAMP DEFAULT NOW() NOT NULL
);
