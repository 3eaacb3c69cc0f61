"""The chat engine: sequences, scheduling, KV cells, sampling, text. Knows no HTTP, no processes, no chat templates."""
