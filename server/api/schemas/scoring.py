"""What rerank and score requests share: how pairs are scored, under the names that each API has for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from server.api.schemas.embeddings import LaneField, parse_truncate
from server.api.schemas.sampling import MAX_INT32
from server.api.schemas.wire import ModelName, WireModel, invalid, only
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


Flag = Annotated[bool, BeforeValidator(_parse_flag)]
Count = Annotated[int | None, Field(ge=1, le=MAX_INT32)]
TruncateField = Annotated[PairTruncate | None, PlainValidator(_parse_truncate)]


class ScoringFields(WireModel):
    """`truncation` is Voyage's, `truncation_direction` TEI's, `truncate_prompt_tokens` and `use_activation` vLLM's."""

    model: ModelName | None = None
    truncate: TruncateField = None
    truncation: TruncateField = None
    truncation_direction: Annotated[str, only("Right", "right")] = "right"
    truncate_prompt_tokens: Annotated[int | None, only(-1)] = None
    max_tokens_per_doc: Count = None
    raw_scores: Flag = False
    use_activation: Flag = True
    priority: LaneField = "interactive"

    # Known, and without influence on the answer.
    user: str = ""

    def scoring(self, *, default_truncate: PairTruncate = "error") -> ScoringOptions:
        """The options; `default_truncate` is for requests that do not say what is to become of long documents."""
        asks_to_cut = self.truncate_prompt_tokens is not None or self.max_tokens_per_doc is not None
        return ScoringOptions(
            truncate=self.truncate or self.truncation or ("end" if asks_to_cut else default_truncate),
            max_tokens_per_doc=self.max_tokens_per_doc,
            raw_scores=self.raw_scores or not self.use_activation,
            lane=self.priority,
        )
