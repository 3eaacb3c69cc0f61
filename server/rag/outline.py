"""What a document's text is made of: its blocks without gaps, each with its page and the headings above it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from server.rag.documents import Block, BlockKind, ParsedDocument, Span

MAX_LEVEL = 9
"""Deeper headings count as this deep."""

MAX_TITLE_CHARS = 120
"""Of one heading in a path: what is longer is hardly one."""

MAX_COLUMNS_CHARS = 300
"""Of a row that names columns: it goes before each chunk of its table, and shall not outweigh it."""

_TITLE_MARKS = re.compile(r"^#{1,6}\s+|\s+#+$|\n[^\S\n]*[=\-~^*]{2,}$")
"""What makes a line a heading in Markdown and the like."""

_WORD = re.compile(r"\w")
_RULE = re.compile(r"\n[ \t|:]*-[-| \t:]*(?:\n|\Z)")
"""The second line of a table in Markdown."""

_NUMBER = re.compile(r"[-+]?[\d.,:/-]*\d\D?")
_YEAR = re.compile(r"(?:19|20)\d\d")


class Region(NamedTuple):
    """A block, or text between blocks, without the space around it; never empty.

    Attributes:
        level: Of a heading its own; of others that of the heading that they stand under, 0 if there is none.
        path: The headings above it, outermost first, joined by " > "; a heading stands under itself.
    """

    kind: BlockKind
    start: int
    end: int
    page: int | None
    level: int
    path: str


class Outline:
    """The regions of a document in order. They hold all of its text but white space."""

    def __init__(self, document: ParsedDocument) -> None:
        self.text = document.text
        self.regions = list(_regions(document))
        self._starts = [region.start for region in self.regions]
        self._columns: dict[int, str] = {}  # by the place of its table in `regions`

    def span(self, start: int, end: int) -> Span | None:
        """Describe a stretch of text without the space around it; None if there is nothing else."""
        part = self.text[start:end]
        content = part.strip()
        if not content:
            return None
        start += len(part) - len(part.lstrip())
        end = start + len(content)
        index = bisect_right(self._starts, start) - 1
        return Span(start, end, self.regions[index].page, self._path(index, end))

    def columns(self, start: int) -> str:
        """Return the row that names the columns of the table that goes on at an offset; empty if none does so there."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self.regions[index].kind != "table" or start == self.regions[index].start:
            return ""
        if index not in self._columns:
            region = self.regions[index]
            self._columns[index] = _columns(self.text[region.start : region.end])
        return self._columns[index]

    def _path(self, index: int, end: int) -> str:
        """The path of the first region that is no heading: what begins with a heading stands under it."""
        last = index
        while self.regions[last].kind == "heading" and last + 1 < len(self.regions) and self._starts[last + 1] < end:
            last += 1
        return self.regions[last].path


def _regions(document: ParsedDocument) -> Iterator[Region]:
    text = document.text
    above: list[tuple[int, str]] = []  # level and title of the headings that count, outermost first
    page = document.blocks[0].page if document.blocks else None
    level, path = 0, ""
    for block, start, end in _tiles(text, document.blocks):
        part = text[start:end]
        content = part.strip()
        if not content:
            continue
        page = page if block.page is None else block.page
        if block.kind == "heading":
            level = min(max(block.level, 1), MAX_LEVEL)
            title = _title(text[block.start : block.end])
            above = [*(heading for heading in above if heading[0] < level), (level, title)]
            path = " > ".join(title for _, title in above if title)
        first = start + len(part) - len(part.lstrip())
        yield Region(block.kind, first, first + len(content), page, level, path)


def _tiles(text: str, blocks: Sequence[Block]) -> list[tuple[Block, int, int]]:
    """Lay blocks end to end: each with where it begins and ends, paragraphs where there is text between them.

    Parsers may leave out what makes a line a heading, "## " or "=====", so that such marks become part of the block.
    """
    tiles: list[tuple[Block, int, int]] = []
    end = 0
    for block in blocks:
        line = max(end, text.rfind("\n", end, block.start) + 1)
        if tiles and tiles[-1][0].kind == "heading" and not _WORD.search(text, end, line):
            tiles[-1] = (*tiles[-1][:2], line)
        else:
            tiles.append((Block("paragraph", end, line), end, line))
        tiles.append((block, line, block.end))
        end = block.end
    return [*tiles, (Block("paragraph", end, len(text)), end, len(text))]


def _title(heading: str) -> str:
    return " ".join(_TITLE_MARKS.sub("", heading).split())[:MAX_TITLE_CHARS]


def _columns(table: str) -> str:
    """The first row of a table, if it names the columns: no figure is in it, save years, or a rule is under it."""
    row, _, _ = table.partition("\n")
    cells = [cell.strip() for cell in row.strip(" |").split("|")]
    has_figures = any(_NUMBER.fullmatch(cell) and not _YEAR.fullmatch(cell) for cell in cells)
    if has_figures and not _RULE.match(table, len(row)):
        return ""
    return row[:MAX_COLUMNS_CHARS].rstrip()
