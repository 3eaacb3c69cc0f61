-- Reindexing: vectors of another model beside those that are searched. Removal of whole stores, slice by slice.

INSERT INTO sequences VALUES ('editions', 0);

-- Names the model whose vectors a store holds; another one after each reindex.
ALTER TABLE vector_stores ADD COLUMN edition INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending_vectors ADD COLUMN edition INTEGER NOT NULL DEFAULT 0;

-- The newest reindex of each store that has had one.
CREATE TABLE reindexes (
    store_row INTEGER PRIMARY KEY REFERENCES vector_stores (row_id) ON DELETE CASCADE,
    edition INTEGER NOT NULL UNIQUE,  -- that the store gets by it
    status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'cancelled', 'failed')),
    failure TEXT,
    embedding_model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);

-- Vectors that are not in `chunks`: of a reindex in progress; or of a store's own edition, on their way there.
CREATE TABLE edition_vectors (
    chunk_id INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    edition INTEGER NOT NULL,
    vector BLOB NOT NULL,  -- as in chunks
    UNIQUE (chunk_id, edition)
);

CREATE INDEX edition_vectors_by_edition ON edition_vectors (edition, chunk_id);

-- The vectors that are searched. To be asked in place of `chunks.vector`.
CREATE VIEW chunk_vectors AS
    SELECT chunks.id, chunks.store_row, chunks.document_id, chunks.hash,
        coalesce(edition_vectors.vector, chunks.vector) AS vector
    FROM vector_stores
    CROSS JOIN chunks ON chunks.store_row = vector_stores.row_id
    LEFT JOIN edition_vectors
        ON edition_vectors.chunk_id = chunks.id AND edition_vectors.edition = vector_stores.edition;

-- Stores whose contents are being removed: expired ones, and those of nobody: their tenant is ''. These are deleted
-- stores, and stores that were not imported to their end; files of nobody are theirs.
CREATE TABLE sweeps (
    store_row INTEGER PRIMARY KEY REFERENCES vector_stores (row_id) ON DELETE CASCADE,
    last_document INTEGER NOT NULL DEFAULT 0  -- its contents, and those of all before it, are gone
);
