"""The body of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import structs
from pydantic import Field, PlainValidator, ValidationInfo, field_validator

from server.api.schemas.sampling import MAX_CHOICES, MAX_INT32, MAX_TOP_LOGPROBS, SamplingFields
from server.api.schemas.wire import IGNORED, ModelName, invalid
from server.types import TextPrompt, TokensPrompt

MAX_PROMPTS = 128
"""Of one request, and as many continuations of them altogether."""

_Prompts = str | list[str] | list[int] | list[list[int]]
EXPECTED = "expected a string, a list of strings, a list of token ids or a list of such lists"


def _parse_prompt(value: Any) -> list[TextPrompt | TokensPrompt]:
    if isinstance(value, list) and value and isinstance(value[0], int):
        return [_to_prompt(value)]
    prompts = value if isinstance(value, list) else [value]
    if len(prompts) > MAX_PROMPTS:
        raise invalid(f"expected at most {MAX_PROMPTS} prompts")
    if not prompts or type(prompts[0]) not in (str, list) or any(type(p) is not type(prompts[0]) for p in prompts):
        raise invalid(EXPECTED, code="invalid_value" if value == [] else "invalid_type")
    return [_to_prompt(prompt) for prompt in prompts]


def _to_prompt(prompt: str | list[Any]) -> TextPrompt | TokensPrompt:
    if not prompt:
        raise invalid("expected prompts that are not empty")
    if isinstance(prompt, str):
        return TextPrompt(prompt)
    if not all(type(token_id) is int for token_id in prompt):
        raise invalid(EXPECTED, code="invalid_type")
    if not 0 <= min(prompt) <= max(prompt) <= MAX_INT32:
        raise invalid("expected token ids of the model's vocabulary")
    return TokensPrompt(prompt)


class CompletionRequest(SamplingFields):
    model: ModelName
    """id or alias of a chat model; required"""
    prompt: Annotated[list[TextPrompt | TokensPrompt], PlainValidator(_parse_prompt, json_schema_input_type=_Prompts)]
    """a string, up to 128 strings, token ids of the model, or up to 128 lists of them; none empty; required"""

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    """1 to 16 choices for each prompt, at most 128 altogether; see [several choices](#several-choices)"""
    best_of: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    """`n` to 16: so many are made of each prompt, and those `n` returned whose tokens are the likeliest on the average,
    best first; not in a stream"""
    logprobs: Annotated[int | None, Field(ge=0, le=MAX_TOP_LOGPROBS)] = None
    """0 to 20: as `top_logprobs` in [chat](#log-probabilities)"""
    echo: bool = False
    """`true` begins each choice with its prompt; not with `logprobs`, as those of prompts are not told"""
    suffix: str = ""
    """what comes behind the gap that is to be filled, where the model has tokens for that (FIM); the prompt has to be
    text"""
    timings: bool = False
    """extension: `true` adds [timings](#timings)"""

    # Known, and without influence on the answer.
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""

    @field_validator("n", "best_of", mode="after")
    @classmethod
    def _fits(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count and count * len(info.data.get("prompt", ())) > MAX_PROMPTS:
            raise invalid(f"expected at most {MAX_PROMPTS} answers to all prompts together")
        return count

    @field_validator("best_of", mode="after")
    @classmethod
    def _leaves_a_choice(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        num_choices = info.data.get("n", 1)
        if best_of is not None and best_of < num_choices:
            raise invalid(f"expected at least n, which is {num_choices}")
        if best_of is not None and best_of > num_choices and info.data.get("stream"):
            raise invalid("what is best is known at the end only, so it cannot be streamed")
        return best_of

    @field_validator("echo", mode="after")
    @classmethod
    def _has_no_logprobs(cls, echo: bool, info: ValidationInfo) -> bool:
        if echo and info.data.get("logprobs") is not None:
            raise invalid("log probabilities of prompts are not told, so it cannot be combined with logprobs")
        return echo

    @field_validator("suffix", mode="after")
    @classmethod
    def _follows_text(cls, suffix: str, info: ValidationInfo) -> str:
        if suffix and any(isinstance(prompt, TokensPrompt) for prompt in info.data.get("prompt", ())):
            raise invalid("it needs prompts that are text")
        return suffix

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def num_candidates(self) -> int:
        """Answers that are made to each prompt."""
        return self.best_of or self.n

    def prompts(self) -> list[TextPrompt | TokensPrompt]:
        if not self.suffix:
            return self.prompt
        return [structs.replace(prompt, suffix=self.suffix) for prompt in self.prompt if isinstance(prompt, TextPrompt)]
