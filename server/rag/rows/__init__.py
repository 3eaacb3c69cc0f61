"""The SQL of `DocumentStore`, one file a concept: functions that run inside a transaction which somebody else began."""
