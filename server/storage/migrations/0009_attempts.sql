-- How often a job has taken a document up, this time included, since the document last got on. A process that ends in
-- good order takes its attempt back: what is left when a server starts are those under which one has died.

ALTER TABLE documents ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
