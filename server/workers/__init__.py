"""One process per model: how it is started, watched and spoken with, and what runs inside."""
