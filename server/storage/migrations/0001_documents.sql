-- Files, vector stores, documents, chunks. `rag/rows/` holds all SQL over them. Times are Unix seconds.

-- Ids of documents, parents and chunks are never given out twice: a job, or an index, may still hold one that is gone.
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO sequences VALUES ('documents', 0), ('parents', 0), ('chunks', 0);

CREATE TABLE files (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of lists
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
);

CREATE INDEX files_by_tenant ON files (tenant);
CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;

-- Each store has a table of its words as well, chunks_fts_<row_id>: see rag/rows/words.py.
CREATE TABLE vector_stores (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of lists
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    metadata TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL,
    expires_after_days INTEGER,
    is_expired INTEGER NOT NULL DEFAULT 0,  -- its chunks are gone, its documents only listed
    embedding_model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dimensions INTEGER NOT NULL,
    chunking TEXT NOT NULL,  -- JSON
    generation INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX vector_stores_by_tenant ON vector_stores (tenant);
CREATE INDEX vector_stores_by_expiry ON vector_stores (last_active_at + 86400 * expires_after_days)
    WHERE expires_after_days IS NOT NULL AND NOT is_expired;

CREATE TABLE batches (
    id TEXT PRIMARY KEY,
    store_row INTEGER NOT NULL REFERENCES vector_stores (row_id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX batches_by_store ON batches (store_row);

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,  -- of the job: a new one when the same file is added again; also the order of lists
    store_row INTEGER NOT NULL REFERENCES vector_stores (row_id) ON DELETE CASCADE,
    file_row INTEGER NOT NULL REFERENCES files (row_id),
    batch_id TEXT,
    status TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'cancelled', 'failed')),
    failure_code TEXT,
    failure_message TEXT,
    attributes TEXT NOT NULL,  -- JSON
    chunking TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    usage_bytes INTEGER NOT NULL DEFAULT 0,
    num_chunks INTEGER NOT NULL DEFAULT 0,  -- once it is completed
    UNIQUE (store_row, file_row)
);

CREATE INDEX documents_by_store ON documents (store_row);
CREATE INDEX documents_by_status ON documents (store_row, status, usage_bytes);
CREATE INDEX documents_by_file ON documents (file_row);
CREATE INDEX documents_by_batch ON documents (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX documents_in_progress ON documents (id) WHERE status = 'in_progress';

-- A document's text, once, in pieces; spans of chunks and parents are cut out of it. Offsets count code points.
CREATE TABLE texts (
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    start INTEGER NOT NULL,
    text TEXT NOT NULL
);

CREATE INDEX texts_by_document ON texts (document_id, start);

CREATE TABLE parents (
    id INTEGER PRIMARY KEY,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    page INTEGER,
    heading TEXT NOT NULL
);

CREATE INDEX parents_by_document ON parents (document_id);

-- A chunk and its vector are one row: neither can be there without the other.
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    store_row INTEGER NOT NULL,  -- of its document
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    parent_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    page INTEGER,
    heading TEXT NOT NULL,
    num_tokens INTEGER NOT NULL,
    hash BLOB NOT NULL,  -- names what was embedded
    vector BLOB NOT NULL  -- fp16, little-endian
);

CREATE INDEX chunks_by_document ON chunks (document_id);
CREATE INDEX chunks_by_store ON chunks (store_row);
CREATE INDEX chunks_by_hash ON chunks (store_row, hash);

-- What is embedded of documents in progress, so that a restart does not begin again.
CREATE TABLE pending_vectors (
    store_row INTEGER NOT NULL,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE ON UPDATE CASCADE,
    hash BLOB NOT NULL,
    vector BLOB NOT NULL
);

CREATE INDEX pending_vectors_by_document ON pending_vectors (document_id);
CREATE INDEX pending_vectors_by_hash ON pending_vectors (store_row, hash);

-- Where deleted objects stood in lists: a client that deletes what it pages through names one as its cursor.
CREATE TABLE removed (
    row_id INTEGER PRIMARY KEY,  -- the oldest are forgotten
    list TEXT NOT NULL,  -- a tenant's files, a tenant's stores, a store's documents
    id TEXT NOT NULL,
    position INTEGER NOT NULL,
    UNIQUE (list, id)
);
