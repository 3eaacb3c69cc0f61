"""The data directory: one SQLite database and the uploaded files. SQL of a kind lives with its owner, not here."""
