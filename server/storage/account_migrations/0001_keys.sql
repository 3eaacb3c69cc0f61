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

-- Goes up whenever a key changes: by it a server sees what other processes have done, whatever else is written here.

CREATE TABLE key_changes (number INTEGER NOT NULL) STRICT;
INSERT INTO key_changes VALUES (0);
CREATE TRIGGER key_inserted AFTER INSERT ON keys BEGIN UPDATE key_changes SET number = number + 1; END;
CREATE TRIGGER key_updated AFTER UPDATE ON keys BEGIN UPDATE key_changes SET number = number + 1; END;
CREATE TRIGGER key_deleted AFTER DELETE ON keys BEGIN UPDATE key_changes SET number = number + 1; END;
