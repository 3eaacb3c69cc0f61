-- The row that names the columns of a table, with chunks that begin further down in it: embedded and searched with their
-- text, of which it is no part. Documents that were stored before have none.

ALTER TABLE chunks ADD COLUMN columns TEXT NOT NULL DEFAULT '';
