-- Responses of /v1/responses that are kept, each with the items that were sent for it and those that it gave. Times are
-- Unix seconds.

CREATE TABLE responses (
    row_id INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    previous_id TEXT,  -- of the response that it goes on from, which may have been deleted since
    created_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,  -- when it was made, or last gone on from, directly or not
    num_bytes INTEGER NOT NULL,  -- of all bodies
    body TEXT NOT NULL  -- JSON, without its output
);

CREATE INDEX responses_by_use ON responses (last_used_at, num_bytes);

CREATE TABLE response_items (
    row_id INTEGER PRIMARY KEY,
    response_row INTEGER NOT NULL REFERENCES responses (row_id) ON DELETE CASCADE,
    position INTEGER NOT NULL,  -- first what was sent, then what was given
    is_output INTEGER NOT NULL,
    id TEXT NOT NULL,  -- clients send back items that they were given, so it may stand in several responses
    body TEXT NOT NULL,  -- JSON
    UNIQUE (response_row, position)
);

CREATE INDEX response_items_by_id ON response_items (id);
