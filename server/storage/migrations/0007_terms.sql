-- What is searched of a chunk by words: see rag/terms.py. NULL: of a chunk that was stored before, when each store had
-- FTS5 tables of its own, chunks_fts_<row_id> and chunks_terms_<row_id>. The first start makes the one of the other:
-- see rag/rows/word_tables.py.

ALTER TABLE chunks ADD COLUMN num_words INTEGER;
ALTER TABLE chunks ADD COLUMN terms BLOB;
