-- Pieces of texts end where pages do, so that the page of any place is known. Of documents that were stored before, and
-- of formats without pages, it is NULL.

ALTER TABLE texts ADD COLUMN page INTEGER;
