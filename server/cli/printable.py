"""Text of others, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without control characters, which can move the cursor or worse; line breaks and tabs become spaces."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
