"""Text without markup, and source code. The text is kept as it is; blank lines tell where blocks end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from server.rag.documents import Block, BlockKind, ParsedDocument
from server.rag.loaders.document_builder import whole_document
from server.rag.loaders.source_file import SourceFile

# Possessive: runs of blank lines are never tried in more than one way.
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")
_BLANK_LINES_AT_TOP_LEVEL = re.compile(r"\n(?:[^\S\n]*+\n)++(?=\S)")
_ITEM = re.compile(r"[^\S\n]*+(?:[-*+•‣–]|\d{1,3}[.)]|[a-z]\))[^\S\n]")
_TITLE = re.compile(
    r"(?:([=\-~^\"'*+#`.:_])\1{2,}[^\S\n]*+\n)?"  # some have a line above, too
    r"[^\S\n]*+(?P<words>\S(?:[^\n]{0,198}?\S)?)[^\S\n]*+\n"
    r"(?P<line>(?P<mark>[=\-~^\"'*+#`.:_])(?P=mark){2,})[^\S\n]*+(?:\n|\Z)"
)
_MAX_LEVEL = 6


def load_text(source: SourceFile) -> ParsedDocument:
    """Paragraphs; lists by their markers; titles that are underlined, as in reStructuredText."""
    return whole_document(source.text, list(_text_blocks(source.text)), "text/plain", source.limits)


def load_code(source: SourceFile) -> ParsedDocument:
    """Stretches that begin after a blank line and at the left margin: in most languages, whole definitions."""
    blocks = [Block("code", start, end) for start, end in _stretches(source.text, _BLANK_LINES_AT_TOP_LEVEL)]
    return whole_document(source.text, blocks, "text/plain", source.limits)


def _text_blocks(text: str) -> Iterator[Block]:
    marks: list[str] = []  # that titles are underlined with: the first one that is met means the highest level
    for start, end in paragraphs(text):
        found = _TITLE.match(text, start, end)
        if found is None or not _is_title(found["words"], found["line"]):
            yield Block(kind_of(text, start), start, end)
            continue
        if found["mark"] not in marks:
            marks.append(found["mark"])
        yield Block("heading", *found.span("words"), level=min(marks.index(found["mark"]) + 1, _MAX_LEVEL))
        if found.end() < end:
            yield Block(kind_of(text, found.end()), found.end(), end)


def _is_title(words: str, line: str) -> bool:
    return any(map(str.isalnum, words)) and 2 * len(line) >= len(words)


def paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Find what stands between blank lines: (start, end), without the blanks at either end."""
    return _stretches(text, _BLANK_LINES)


def kind_of(text: str, start: int) -> BlockKind:
    return "list" if _ITEM.match(text, start) else "paragraph"


def _stretches(text: str, gap: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for found in gap.finditer(text):
        yield from _trimmed(text, start, found.start())
        start = found.end()
    yield from _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Without blank lines before and blanks after; the first line keeps its indentation."""
    content = text[start:end]
    lead = len(content) - len(content.lstrip())
    if lead < len(content):
        yield start + content.rfind("\n", 0, lead) + 1, start + len(content.rstrip())
