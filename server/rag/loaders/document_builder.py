"""Puts a `ParsedDocument` together, either from pieces or over a text that is kept as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from server.rag.documents import Block, BlockKind, ParsedDocument
from server.rag.loaders.decoding import clean
from server.rag.parsing import MAX_BLOCKS, MAX_TITLE_LENGTH, ParseFailed, ParserLimits


class DocumentBuilder:
    """Collects blocks in order; in the text, a blank line is between them."""

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._end = 0
        self._num_bytes = 0

    @property
    def num_blocks(self) -> int:
        return len(self._blocks)

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block, unless there is nothing to read in it. List items that follow each other are one block.

        Raises:
            ParseFailed: The text has become longer than the limits allow.
        """
        text = clean(text).strip("\n").rstrip()
        if not text.strip():
            return
        last = self._blocks[-1] if self._blocks else None
        if last is not None and kind == last.kind == "list" and page == last.page:
            self._append("\n")
            self._append(text)
            self._blocks[-1] = replace(last, end=self._end)
            return
        if last is not None:
            self._append("\n\n")
        start = self._end
        self._append(text)
        self._blocks.append(Block(kind, start, self._end, page, level))

    def add_heading(self, text: str, level: int, *, page: int | None = None) -> None:
        """Append a heading, on one line."""
        self.add("heading", " ".join(text.split()), level=level, page=page)

    def add_table(self, rows: Iterable[Sequence[str]], *, page: int | None = None) -> None:
        """Append a table, a row on each line; the first one names the columns, where anything does."""
        lines = (" | ".join(" ".join(cell.split()) for cell in row) for row in rows)
        self.add("table", "\n".join(line for line in lines if line.strip(" |")), page=page)

    def build(self, media_type: str, *, title: str = "") -> ParsedDocument:
        """Make the document.

        Raises:
            ParseFailed: There is no text.
        """
        return whole_document("".join(self._parts), self._blocks, media_type, self._limits, title=title)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._end += len(text)
        self._num_bytes += num_utf8_bytes(text)
        check_text_size(self._num_bytes, self._limits)


def whole_document(
    text: str, blocks: Sequence[Block], media_type: str, limits: ParserLimits, *, title: str = ""
) -> ParsedDocument:
    """Make a document of a clean text and the blocks in it.

    Raises:
        ParseFailed: There is no text, or too much.
    """
    if not blocks:
        raise ParseFailed("invalid_file", "the file has no text")
    check_text_size(num_utf8_bytes(text), limits)
    kept = list(blocks[:MAX_BLOCKS])
    if len(blocks) > MAX_BLOCKS:
        kept[-1] = replace(kept[-1], end=blocks[-1].end)
    return ParsedDocument(text, tuple(kept), media_type, " ".join(clean(title[:MAX_TITLE_LENGTH]).split()))


def num_utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def check_text_size(num_bytes: int, limits: ParserLimits) -> None:
    if num_bytes > limits.max_text_bytes:
        raise ParseFailed("invalid_file", f"the file has more than {limits.max_text_bytes >> 20} MB of text; split it")
