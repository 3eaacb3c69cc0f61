"""What is embedded of a chunk: where it stands, then its text. Why so: docs/decisions/0014-chunks-and-context.md."""

from __future__ import annotations


def embedded_text(text: str, *, heading: str, context: str = "") -> str:
    """Put before a chunk's text what it says nothing of itself.

    Args:
        heading: As `Span.heading`.
        context: As `Chunk.context`.
    """
    return "\n".join(part for part in (context, heading, text) if part)
