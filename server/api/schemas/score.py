"""The body of a score request, as vLLM has it: one text and many, or as many as there are on the other side."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationInfo, field_validator

from server.api.schemas.scoring import ScoringFields
from server.api.schemas.wire import invalid


def _parse_texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    if not texts:
        raise invalid("expected at least one text")
    return texts


Texts = Annotated[list[str], BeforeValidator(_parse_texts, json_schema_input_type=str | list[str])]


class ScoreRequest(ScoringFields):
    text_1: Annotated[Texts, Field(validation_alias=AliasChoices("text_1", "data_1", "queries"))]
    """a text, or as many as in `text_2`; also `data_1`, `queries`; required"""
    text_2: Annotated[Texts, Field(validation_alias=AliasChoices("text_2", "data_2", "documents", "items"))]
    """a text or a list of texts; also `data_2`, `documents`, `items`; required"""

    @field_validator("text_1", mode="after")
    @classmethod
    def _not_empty(cls, texts: list[str]) -> list[str]:
        if not all(texts):
            raise invalid("expected texts that are not empty, but one is")
        return texts

    @field_validator("text_2", mode="after")
    @classmethod
    def _pairs_up(cls, texts: list[str], info: ValidationInfo) -> list[str]:
        num_queries = len(info.data.get("text_1", ""))
        if num_queries > 1 and num_queries != len(texts):
            raise invalid(
                f"text_1 has {num_queries} texts and text_2 has {len(texts)}; send one text_1, or as many as text_2"
            )
        return texts

    @property
    def queries(self) -> list[str]:
        """One for each of `text_2`."""
        return self.text_1 if len(self.text_1) > 1 else self.text_1 * len(self.text_2)
