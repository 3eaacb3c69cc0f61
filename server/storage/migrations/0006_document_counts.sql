-- Documents by store and status, counted as they come, change and go: every search and every list of stores asks, and
-- counting 100,000 takes 10 ms.
CREATE TABLE document_counts (
    store_row INTEGER NOT NULL REFERENCES vector_stores (row_id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    usage_bytes INTEGER NOT NULL,  -- of all of them
    PRIMARY KEY (store_row, status)
) WITHOUT ROWID;

INSERT INTO document_counts
    SELECT store_row, status, count(*), sum(usage_bytes) FROM documents GROUP BY store_row, status;

CREATE TRIGGER document_counted AFTER INSERT ON documents BEGIN
    INSERT INTO document_counts VALUES (new.store_row, new.status, 1, new.usage_bytes)
        ON CONFLICT DO UPDATE SET number = number + 1, usage_bytes = usage_bytes + excluded.usage_bytes;
END;

CREATE TRIGGER document_not_counted AFTER DELETE ON documents BEGIN
    UPDATE document_counts SET number = number - 1, usage_bytes = usage_bytes - old.usage_bytes
        WHERE store_row = old.store_row AND status = old.status;
END;

CREATE TRIGGER document_counted_anew AFTER UPDATE OF status, usage_bytes ON documents BEGIN
    UPDATE document_counts SET number = number - 1, usage_bytes = usage_bytes - old.usage_bytes
        WHERE store_row = old.store_row AND status = old.status;
    INSERT INTO document_counts VALUES (new.store_row, new.status, 1, new.usage_bytes)
        ON CONFLICT DO UPDATE SET number = number + 1, usage_bytes = usage_bytes + excluded.usage_bytes;
END;

DROP INDEX documents_by_status;
