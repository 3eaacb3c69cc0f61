"""The body of a rerank request: what Cohere, Jina, Voyage, TEI, vLLM, llama.cpp and Xinference accept, in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo

from server.api.schemas.sampling import MAX_INT32, MAX_TIMEOUT_S
from server.api.schemas.scoring import Count, Flag, ScoringFields
from server.api.schemas.wire import IGNORED, WireModel, invalid
from server.services.relevant_spans import SpanOptions

MAX_RANK_FIELDS = 64

_Documents = Annotated[list[str | dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class WireDocument:
    """`text` is what is ranked; `fields` is the object it came from, empty for a plain string."""

    text: str
    fields: dict[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """An object in any case: some clients read `.text`. Other fields are kept, as Cohere does."""
        return {"text": self.text} | self.fields


def _parse_texts(value: Any, info: ValidationInfo) -> list[WireDocument]:
    if not isinstance(value, list):
        raise invalid("expected a list of documents", code="invalid_type")
    if not value:
        raise invalid("expected at least one document")
    names = info.data.get("rank_fields") or ["text"]
    return [_parse_document(index, document, names) for index, document in enumerate(value)]


def _parse_document(index: int, document: Any, names: list[str]) -> WireDocument:
    if isinstance(document, str):
        return WireDocument(document)
    if isinstance(document, dict):
        texts = [document[name] for name in names if document.get(name) is not None]
        if texts and all(isinstance(text, str) for text in texts):
            return WireDocument("\n".join(texts), document)
    raise invalid(
        'expected strings or objects like {"text": "..."}, or rank_fields with the names of other fields that hold '
        f"text, but item {index} is neither",
        code="invalid_type",
    )


def _parse_documents(value: Any, info: ValidationInfo) -> list[WireDocument]:
    """TEI's clients send `texts` in place of `documents`."""
    texts: list[WireDocument] | None = info.data.get("texts")
    if value is None and texts is not None:
        return texts
    if value is None:
        raise invalid("", code="missing_required_parameter")
    if texts is not None:
        raise invalid("the request has texts too; send one of them")
    return _parse_texts(value, info)


class RelevantSpans(WireModel):
    mode: Literal["enabled", "disabled"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_spans: Count = None


class RerankRequest(ScoringFields):
    query: Annotated[str, Field(min_length=1)]
    """a string that is not empty; required"""
    # In this order, because each parser looks at what came before.
    rank_fields: Annotated[list[str], Field(default_factory=list, max_length=MAX_RANK_FIELDS)]
    """the fields of an object that are ranked, joined by line breaks; default: `["text"]`"""
    texts: Annotated[list[WireDocument] | None, PlainValidator(_parse_texts, json_schema_input_type=_Documents)] = None
    """TEI's name for `documents`"""
    documents: Annotated[
        list[WireDocument],
        PlainValidator(_parse_documents, json_schema_input_type=_Documents),
        Field(validate_default=True),
    ] = None  # type: ignore[assignment]  # never stays None
    """1 to `server.limits.max_documents` strings or objects; required. An empty string is scored like any other"""
    top_n: Annotated[int | None, Field(ge=0, le=MAX_INT32)] = None
    """how many results to return; default: all. 0 means all too, as in vLLM, whose default it is"""
    top_k: Count = None
    """Voyage's name for `top_n`, which wins; 1 or more"""
    return_documents: Flag = False
    """`true` (or `"true"`) adds `"document": {"text": …}` to each result, with the other fields of an object; default
    `false`, on all paths. Ignored by `/v2/rerank`, whose results have none"""
    return_text: Flag = False
    """TEI's name for `return_documents`"""
    timeout_ms: Annotated[int | None, Field(ge=1, le=MAX_TIMEOUT_S * 1000)] = None
    """extension: score documents in their order as long as this lasts (at least one; a batch that has begun is
    finished). Put the likeliest first"""
    relevant_spans: RelevantSpans | None = None
    """Cohere's: see [below](#relevant-spans)"""

    # Known, and without influence on the answer.
    max_chunks_per_doc: Annotated[Count, IGNORED] = None
    """documents are scored whole"""
    return_len: Annotated[Flag, IGNORED] = False
    """counts are in `usage` in any case"""
    kwargs: Annotated[str, IGNORED] = ""
    """Xinference's client repeats here, as JSON text, what it sends as fields"""

    @property
    def num_wanted(self) -> int | None:
        """None: all. vLLM's clients say 0 for that, which is its default; nobody wants no results."""
        return (self.top_n if self.top_n is not None else self.top_k) or None

    @property
    def wants_documents(self) -> bool:
        return self.return_documents or self.return_text

    def spans(self) -> SpanOptions | None:
        wanted = self.relevant_spans
        if wanted is None or wanted.mode == "disabled":
            return None
        return SpanOptions(threshold=wanted.threshold, max_spans=wanted.max_spans)
