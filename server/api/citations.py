"""What a grounded answer rests on, as OpenAI (`annotations`) and Cohere (`citations`) write it.

`x` holds what they have no field for, and the numbered sources themselves. Offsets are in code points.
"""

from __future__ import annotations

from typing import Any

from server.rag.prompt import Source
from server.rag.quotes import Quote
from server.rag.support import Support
from server.services.grounding import Cited, CitedSource, Sourced


def sources_body(sourced: Sourced) -> dict[str, Any]:
    """`x` before the first word of an answer."""
    return {
        "queries": sourced.queries,
        "sources": [_source_body(number, source) for number, source in enumerate(sourced.sources, start=1)],
        "num_dropped_sources": sourced.num_dropped,
        "num_irrelevant_hits": sourced.num_irrelevant,
        "rerank_failure": sourced.rerank_failure,
        "timings_ms": sourced.timings_ms,
    }


def citations_body(cited: Cited, sources: tuple[Source, ...]) -> dict[str, Any]:
    """What comes after the last word: the message's fields besides its content."""
    return {
        "annotations": [annotation_body(mark, sources[mark.number - 1]) for mark in cited.marks],
        "citations": [_citation(cited, support, sources) for support in cited.statements],
        "x": {"num_removed_citations": cited.num_removed},
    }


def _source_body(number: int, source: Source) -> dict[str, Any]:
    return {
        "number": number,
        "file_id": source.file_id,
        "filename": source.filename,
        "page": source.span.page,
        "section": source.span.heading,
        "start": source.span.start,
        "end": source.span.end,
        "score": source.score,
        "text": source.text,
    }


def search_body(sourced: Sourced, *, with_results: bool) -> dict[str, Any]:
    """What the Responses API says of a search: `queries`, and of the sources as much as the client wants to know."""
    extra = sources_body(sourced)
    queries, sources = extra.pop("queries"), extra.pop("sources")
    results = [_result_body(body, source) for body, source in zip(sources, sourced.sources, strict=True)]
    return {"queries": list(queries), "results": results if with_results else None, "x": extra}


def _result_body(body: dict[str, Any], source: Source) -> dict[str, Any]:
    named = {name: body.pop(name) for name in ("file_id", "filename", "score", "text")}
    return {**named, "attributes": dict(source.attributes), "x": body}


def annotation_body(mark: CitedSource, source: Source) -> dict[str, Any]:
    """OpenAI's `file_citation`, whose `index` points into the sources; `x` tells the place that is cited."""
    span = mark.quote.span if mark.quote else source.span
    return {
        "type": "file_citation",
        "index": mark.number - 1,
        "file_id": source.file_id,
        "filename": source.filename,
        "start_index": mark.start,
        "end_index": mark.end,
        "x": {
            "number": mark.number,
            "by": _author(mark.start, mark.end),
            "supported": mark.is_supported,
            "page": span.page,
            "section": span.heading,
            "start": span.start,
            "end": span.end,
            "quote": mark.quote.text if mark.quote else None,
        },
    }


def _citation(cited: Cited, support: Support, sources: tuple[Source, ...]) -> dict[str, Any]:
    """Cohere's: a stretch of the answer, and what it rests on."""
    statement = support.statement
    starts = {mark.start for mark in statement.marks}
    quotes = {mark.number: mark.quote for mark in cited.marks if mark.start in starts}
    return {
        "start": statement.start,
        "end": statement.end,
        "text": cited.text[statement.start : statement.end],
        "type": "TEXT_CONTENT",
        "sources": [_document(sources[number - 1], quote) for number, quote in quotes.items()],
        "x": {
            "numbers": statement.numbers,
            "by": _author(statement.marks[0].start, statement.marks[0].end),
            "supported": support.is_supported,
            "overlap": support.overlap,
            "score": support.score,
        },
    }


def _author(start: int, end: int) -> str:
    """Who cites: the model with a mark, or the server with none."""
    return "model" if start < end else "server"


def _document(source: Source, quote: Quote | None) -> dict[str, Any]:
    """A document of the request as it came; of a stored one what is quoted."""
    fields = source.fields or {"title": source.filename, "snippet": quote.text if quote else ""}
    return {"type": "document", "id": source.file_id, "document": {**fields, "id": source.file_id}}
