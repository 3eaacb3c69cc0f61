"""Token counts in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.types import Usage


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def total_usage(usages: Iterable[Usage]) -> Usage:
    counted = list(usages)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in counted),
        completion_tokens=sum(usage.completion_tokens for usage in counted),
        cached_tokens=sum(usage.cached_tokens for usage in counted),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in counted),
    )
