"""Cuts a document into chunks, by the embedding model's own tokens.

A chunk is a stretch of the document's text: nothing is added, changed or put together. Every character that is not
white space is in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from server.rag.documents import ChunkDraft, ChunkedDocument, ChunkingStrategy, ParsedDocument, Span
from server.rag.outline import Outline
from server.rag.structure import Structure, Window
from server.rag.token_bounds import TokenBounds


def chunk(document: ParsedDocument, strategy: ChunkingStrategy, tokens: npt.NDArray[np.int32]) -> ChunkedDocument:
    """Cut a document.

    Args:
        strategy: `overlap_tokens` are at most half of `max_tokens`; `parent_tokens` are 0 or not less.
        tokens: int32 [num_tokens, 2]: start and end of each token in `document.text`, in order.

    Returns:
        Chunks in order, none inside another; the same for the same input. Without text, none.
    """
    assert 2 * strategy.overlap_tokens <= strategy.max_tokens, "windows would not get on"
    bounds = TokenBounds(document.text, tokens)
    cutter = _Cutter(Outline(document), bounds)
    if strategy.kind == "auto":
        strategy = ChunkingStrategy()  # whose sizes are those of auto
    if strategy.kind == "structural":
        chunked = cutter.nested(strategy)
    else:
        chunked = cutter.alone(_token_windows(bounds, strategy.max_tokens, strategy.overlap_tokens))
    return replace(chunked, pages=tuple(_pages(document)))


def _pages(document: ParsedDocument) -> Iterator[tuple[int, int]]:
    """Where pages begin: with the first block of each."""
    last = None
    for block in document.blocks:
        if block.page is not None and block.page != last:
            last = block.page
            yield block.start, block.page


def _token_windows(bounds: TokenBounds, max_tokens: int, overlap_tokens: int) -> Iterator[Window]:
    """OpenAI's windows: as many tokens as allowed, of which the next window repeats as many as it should."""
    start = end = 0
    while end < bounds.last:
        end = max(end + 1, bounds.furthest(start, max_tokens))
        yield start, end
        start = max(start + 1, bounds.earliest(end, overlap_tokens))


class _Cutter:
    """Makes chunks of windows."""

    def __init__(self, outline: Outline, bounds: TokenBounds) -> None:
        self._outline = outline
        self._bounds = bounds

    def alone(self, windows: Iterator[Window]) -> ChunkedDocument:
        """Chunks that are their own parents."""
        spans = self._spans(windows)
        return ChunkedDocument(tuple(spans), tuple(self._drafts(spans)))

    def nested(self, strategy: ChunkingStrategy) -> ChunkedDocument:
        """Chunks along the document's structure, each inside its parent."""
        structure = Structure(self._outline, self._bounds)
        sizes = {"max_tokens": strategy.max_tokens, "overlap_tokens": strategy.overlap_tokens}
        if strategy.parent_tokens <= strategy.max_tokens:
            return self.alone(structure.cut(0, self._bounds.last, **sizes))
        parents: list[Span] = []
        chunks: list[ChunkDraft] = []
        for window in structure.cut(0, self._bounds.last, max_tokens=strategy.parent_tokens, overlap_tokens=0):
            for parent in self._spans(iter([window])):
                spans = self._spans(structure.cut(*window, **sizes))
                chunks += (replace(draft, parent=len(parents)) for draft in self._drafts(spans))
                parents.append(parent)
        return ChunkedDocument(tuple(parents), tuple(chunks))

    def _spans(self, windows: Iterator[Window]) -> list[Span]:
        """Their text without the space around it; windows that add nothing else are left out."""
        spans: list[Span] = []
        for start, end in windows:
            span = self._outline.span(self._bounds.offsets[start], self._bounds.offsets[end])
            if span is not None and (not spans or span.end > spans[-1].end):
                spans.append(span)
        return spans

    def _drafts(self, spans: list[Span]) -> Iterator[ChunkDraft]:
        for index, span in enumerate(spans):
            num_tokens = self._bounds.num_tokens(self._bounds.holding(span.start), self._bounds.at(span.end))
            yield ChunkDraft(span, index, num_tokens, columns=self._outline.columns(span.start))
