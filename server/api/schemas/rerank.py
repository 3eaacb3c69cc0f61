"""The body of `POST /v1/rerank`: what Cohere v1, Jina and their users send."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator

from server.api.schemas.sampling import MAX_INT32
from server.api.schemas.wire import ModelName, WireModel, invalid


def _parse_documents(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise invalid("expected a list of documents", code="invalid_type")
    if not value:
        raise invalid("expected at least one document")
    return [_text_of(index, document) for index, document in enumerate(value)]


def _text_of(index: int, document: Any) -> str:
    match document:
        case str(text) | {"text": str(text)}:
            return text
    raise invalid(
        f'expected strings or objects like {{"text": "..."}}, but item {index} is neither', code="invalid_type"
    )


def _parse_flag(value: Any) -> Any:
    """RAGFlow sends `"true"`, a string."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


class RerankRequest(WireModel):
    model: ModelName | None = None
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str], PlainValidator(_parse_documents)]
    top_n: Annotated[int | None, Field(ge=1, le=MAX_INT32)] = None
    return_documents: Annotated[bool, BeforeValidator(_parse_flag)] = False
    truncate: bool = False
