"""Markdown. The text is kept as it is, markup included; CommonMark's rules tell the blocks."""

from __future__ import annotations

from itertools import zip_longest

from markdown_it import MarkdownIt
from markdown_it.token import Token

from server.rag.documents import Block, BlockKind, ParsedDocument
from server.rag.loaders.document_builder import whole_document
from server.rag.loaders.source_file import SourceFile

_KINDS: dict[str, BlockKind] = {
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "html_block": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}


def load_markdown(source: SourceFile) -> ParsedDocument:
    """Blocks of the outermost level: a list or a quotation is one, with all that is in it. The first heading of the
    highest level is the title."""
    text = source.text
    lines = _line_starts(text)
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # what is inside a block stays as it is
    blocks: list[Block] = []
    front_matter_end = _front_matter_end(text)
    if front_matter_end:
        blocks.append(Block("code", 0, front_matter_end))
    # Blank lines in its stead keep the numbers of all other lines.
    body = "\n" * text.count("\n", 0, front_matter_end) + text[front_matter_end:]
    tokens = parser.parse(body)
    for token, inner in zip_longest(tokens, tokens[1:]):
        if token.level == 0 and token.map is not None:
            start, end = lines[token.map[0]], lines[token.map[1]]
            blocks.extend(_block(text, token, inner, start, end))
    headings = [block for block in blocks if block.kind == "heading"]
    title = min(headings, key=lambda block: block.level, default=None)
    return whole_document(
        text, blocks, "text/markdown", source.limits, title=text[title.start : title.end] if title else ""
    )


def _block(text: str, token: Token, inner: Token | None, start: int, end: int) -> list[Block]:
    """The block of a token that stands from `start` to `end`, if it has one and is not empty or all comment."""
    end = start + len(text[start:end].rstrip())
    if token.type == "heading_open" and inner is not None and inner.content:
        # Without the marks around it: the words alone are shown as the heading of what follows.
        found = text.find(inner.content, start, end)
        span = (found, found + len(inner.content)) if found >= 0 else (start, end)
        return [Block("heading", *span, level=int(token.tag[1]))]
    if token.type not in _KINDS or start == end or text.startswith("<!--", start):
        return []
    return [Block(_KINDS[token.type], start, end)]


def _line_starts(text: str) -> list[int]:
    """Offset of each line, and the end of the text twice: a block may end after the last line."""
    starts = [0]
    position = text.find("\n")
    while position >= 0:
        starts.append(position + 1)
        position = text.find("\n", position + 1)
    return [*starts, len(text), len(text)]


def _front_matter_end(text: str) -> int:
    """Where the metadata ends that stand between lines of dashes at the very start; 0 if there are none."""
    if not text.startswith("---\n"):
        return 0
    end = text.find("\n---\n", 3)
    return end + len("\n---") if end >= 0 else 0
