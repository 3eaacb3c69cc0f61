-- What requests made models do: a row for each model that worked for a request. Written from `usage/`, see the ledger.

CREATE TABLE usage (
    request TEXT NOT NULL,          -- use_..., our own; the same in all rows of one request
    model TEXT NOT NULL,            -- configured id
    kind TEXT NOT NULL,             -- of the model
    at_ms INTEGER NOT NULL,         -- Unix milliseconds at which the request came
    tenant TEXT NOT NULL,
    key_id TEXT,                    -- NULL: a server without keys
    sender TEXT,                    -- as the client's header says
    request_id TEXT NOT NULL,       -- x-request-id
    path TEXT NOT NULL,
    status TEXT NOT NULL,           -- completed, client_gone, server_died, or the code of an error
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, -- of the prompt's
    completion_tokens INTEGER NOT NULL,
    input_price REAL NOT NULL,      -- of a million tokens, as it was then
    output_price REAL NOT NULL,
    cached_price REAL NOT NULL,
    cost REAL NOT NULL,
    queue_ms REAL,                  -- of the request, as the rest
    ttft_ms REAL,
    duration_ms REAL NOT NULL,
    PRIMARY KEY (request, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_time ON usage (at_ms);
CREATE INDEX usage_by_tenant ON usage (tenant, at_ms);
