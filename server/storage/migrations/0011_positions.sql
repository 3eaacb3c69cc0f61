-- Where a document stands in the list of its store: the id that it had first. Its id becomes another one when the file is
-- added again, and a client may be paging through the list just then.
ALTER TABLE documents ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
UPDATE documents SET position = id;
CREATE UNIQUE INDEX documents_by_position ON documents (store_row, position);

-- Who has most of the responses, and which of them were not used for longest.
CREATE INDEX responses_by_tenant ON responses (tenant, last_used_at, num_bytes);
