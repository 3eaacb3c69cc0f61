"""The body of `POST /v1/embeddings`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from server.api.schemas.wire import ModelName, WireModel, invalid


def _parse_input(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    if not texts:
        raise invalid("expected at least one text")
    for index, text in enumerate(texts):
        if isinstance(text, int | list):
            raise invalid("token ids are not supported; send text", code="unsupported_value")
        if not isinstance(text, str):
            raise invalid(f"expected strings, but item {index} is not", code="invalid_type")
        if not text:
            raise invalid(f"expected texts that are not empty, but item {index} is")
    return texts


class EmbeddingRequest(WireModel):
    model: ModelName
    input: Annotated[list[str], PlainValidator(_parse_input)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1, le=65536)] = None
    truncate: bool = False

    # Known, and without influence on the answer.
    user: str = ""
