"""Documents: parsed, cut into chunks, stored, indexed, found again, quoted. Knows models by `protocols.py` only."""
