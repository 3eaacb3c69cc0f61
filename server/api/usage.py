"""Token counts in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
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
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def total_usage(usages: Sequence[Usage], *, num_siblings: int = 1) -> Usage:
    """Of generations, of which so many in a row answer the same prompt: it counts once, and what was cached of it is
    what the first of them found."""
    groups = [usages[first : first + num_siblings] for first in range(0, len(usages), num_siblings)]
    return Usage(
        prompt_tokens=sum(group[0].prompt_tokens for group in groups),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(min(usage.cached_tokens for usage in group) for group in groups),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        accepted_prediction_tokens=sum(usage.accepted_prediction_tokens for usage in usages),
        rejected_prediction_tokens=sum(usage.rejected_prediction_tokens for usage in usages),
    )
