"""What rerank and score requests share: how pairs are scored, under the names that each API has for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from server.api.schemas.embeddings import LaneField, parse_truncate
from server.api.schemas.sampling import MAX_INT32
from server.api.schemas.wire import IGNORED, ModelName, WireModel, invalid, only
from server.services.pair_scoring import ScoringOptions

PairTruncate = Literal["error", "end"]


def _parse_flag(value: Any) -> Any:
    """RAGFlow sends `"true"`, a string."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _parse_truncate(value: Any) -> PairTruncate:
    truncate = parse_truncate(value)
    if truncate in ("error", "end"):
        return truncate
    raise invalid('documents are cut at their end only; send "end" or "error"', code="unsupported_value")


Flag = Annotated[bool, BeforeValidator(_parse_flag, json_schema_input_type=bool | Literal["true", "false"])]
Count = Annotated[int | None, Field(ge=1, le=MAX_INT32)]
TruncateField = Annotated[PairTruncate | None, PlainValidator(_parse_truncate, json_schema_input_type=bool | str)]


class ScoringFields(WireModel):
    """`truncation` is Voyage's, `truncation_direction` TEI's, `truncate_prompt_tokens` and `use_activation` vLLM's."""

    model: ModelName | None = None
    """id or alias of a rerank model; default: the first configured one"""
    truncate: TruncateField = None
    """`false`, `"none"` or `"error"` refuse documents that are too long with `context_length_exceeded`; `true` or
    `"end"` cut their end; default: see the dialects. The query is never cut"""
    truncation: TruncateField = None
    """Voyage's name for `truncate`, which wins"""
    truncation_direction: Annotated[str, only("Right", "right")] = "right"
    """TEI's"""
    truncate_prompt_tokens: Annotated[int | None, only(-1)] = None
    """vLLM's; means `"truncate": "end"`"""
    max_tokens_per_doc: Count = None
    """1 or more: cut documents to so many tokens; means `"truncate": "end"` too, unless the request says otherwise"""
    raw_scores: Flag = False
    """`true` gives logits in place of 0 to 1; default `false`"""
    use_activation: Flag = True
    """`false` gives logits too, as in vLLM; default `true`"""
    priority: LaneField = "interactive"
    """`"interactive"` (or 0 and below, the default) or `"bulk"` (or 1 and above), which waits while others do not"""

    # Known, and without influence on the answer.
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""

    def scoring(self, *, default_truncate: PairTruncate = "error") -> ScoringOptions:
        """The options; `default_truncate` is for requests that do not say what is to become of long documents."""
        asks_to_cut = self.truncate_prompt_tokens is not None or self.max_tokens_per_doc is not None
        return ScoringOptions(
            truncate=self.truncate or self.truncation or ("end" if asks_to_cut else default_truncate),
            max_tokens_per_doc=self.max_tokens_per_doc,
            raw_scores=self.raw_scores or not self.use_activation,
            lane=self.priority,
        )
