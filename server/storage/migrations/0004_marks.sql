-- A random number, another one with each change of a store's chunks. Generations, and ids, are counted on from where a
-- restored database stands, and so come again with other contents; this does not. It names what an index file is of.
ALTER TABLE vector_stores ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
