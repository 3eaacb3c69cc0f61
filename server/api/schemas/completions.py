"""The body of `POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator

from server.api.schemas.sampling import MAX_INT32, SamplingFields
from server.api.schemas.wire import IGNORED, ModelName, invalid, only
from server.types import TextPrompt, TokensPrompt

MAX_PROMPTS = 128
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

    # Known, but honoured only where they change nothing.
    n: Annotated[Any, only(1)] = 1
    best_of: Annotated[Any, only(1)] = 1
    echo: Annotated[Any, only(False)] = False
    logprobs: Annotated[Any, only()] = None
    suffix: Annotated[Any, only("")] = None

    # Known, and without influence on the answer.
    user: Annotated[str, IGNORED] = ""
    """nothing is stored"""
