"""What tests ask of a parsed document."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from server.rag.documents import BlockKind, ParsedDocument

Read = Callable[..., ParsedDocument]
"""Read content under a file name; limits by keyword."""


def outline(document: ParsedDocument) -> list[tuple[BlockKind, str]]:
    """Kind and text of each block."""
    return [(block.kind, document.text[block.start : block.end]) for block in document.blocks]


def texts(document: ParsedDocument, kind: BlockKind) -> list[str]:
    """Texts of the blocks of one kind."""
    return [text for its_kind, text in outline(document) if its_kind == kind]


def check_blocks(document: ParsedDocument) -> None:
    """Assert what holds for every document: blocks are in order, apart, inside the text, and not blank."""
    document.text.encode()  # no halves of characters
    assert document.blocks
    for block in document.blocks:
        assert 0 <= block.start < block.end <= len(document.text)
        assert document.text[block.start : block.end].strip()
        assert (block.level > 0) == (block.kind == "heading")
        assert block.page is None or block.page > 0
    for before, after in pairwise(document.blocks):
        assert before.end <= after.start
        assert (before.page or 0) <= (after.page or 0)
