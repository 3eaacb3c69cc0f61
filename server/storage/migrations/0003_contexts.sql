-- What a chat model says of where a chunk stands in its document: embedded and searched with its text, never shown.

ALTER TABLE chunks ADD COLUMN context TEXT NOT NULL DEFAULT '';
ALTER TABLE chunks ADD COLUMN context_key BLOB;  -- names what it was written from; NULL if none was written

CREATE INDEX chunks_by_context ON chunks (store_row, context_key) WHERE context_key IS NOT NULL;

-- What is written for documents in progress, so that a restart does not begin again.
CREATE TABLE pending_contexts (
    store_row INTEGER NOT NULL,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    key BLOB NOT NULL,
    context TEXT NOT NULL
);

CREATE INDEX pending_contexts_by_document ON pending_contexts (document_id);
CREATE INDEX pending_contexts_by_key ON pending_contexts (store_row, key);
