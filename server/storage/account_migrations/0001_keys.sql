-- Keys. The key itself is nowhere: whoever has this file cannot use it.

CREATE TABLE keys (
    id TEXT PRIMARY KEY,            -- key_...
    digest BLOB NOT NULL UNIQUE,    -- SHA-256 of the key
    hint TEXT NOT NULL,             -- its first characters, to tell keys apart
    name TEXT NOT NULL,             -- for people; may be empty
    tenant TEXT NOT NULL,
    scopes TEXT NOT NULL,           -- JSON list
    models TEXT,                    -- JSON list of ids; NULL: all
    limits TEXT NOT NULL,           -- JSON, see KeyLimits
    created_at INTEGER NOT NULL,    -- Unix seconds, as all times here
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
