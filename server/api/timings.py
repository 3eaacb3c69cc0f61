"""Where the time went: llama.cpp's `timings` in a body, and the header `server-timing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.types import Finished, Started, Usage


def timings_body(endings: Sequence[Finished], usage: Usage) -> dict[str, Any] | None:
    """Of answers that ran side by side: their tokens together, and the time of the slowest. None for a script's."""
    timings = [ending.timings for ending in endings if ending.timings]
    if not timings:
        return None
    num_computed = usage.prompt_tokens - usage.cached_tokens
    prefill_ms = max(each.prefill_ms for each in timings)
    decode_ms = max(each.decode_ms for each in timings)
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": num_computed,
        "prompt_ms": prefill_ms,
        "prompt_per_second": _per_second(num_computed, prefill_ms),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": decode_ms,
        "predicted_per_second": _per_second(usage.completion_tokens, decode_ms),
    }


def timing_so_far(started: Started) -> str | None:
    """The header of a stream: what is known when it begins."""
    if not (started.queue_ms or started.tokenize_ms):
        return None
    return f"queue;dur={started.queue_ms:.1f}, tokenize;dur={started.tokenize_ms:.1f}"


def timing_of(ending: Finished) -> str | None:
    """The header of a whole answer."""
    timings, usage = ending.timings, ending.usage
    if timings is None:
        return None
    ttft_ms = timings.queue_ms + timings.tokenize_ms + timings.prefill_ms
    return ", ".join(
        [
            f"queue;dur={timings.queue_ms:.1f}",
            f"tokenize;dur={timings.tokenize_ms:.1f}",
            f'prefix-hit;desc="{usage.cached_tokens} of {usage.prompt_tokens} tokens"',
            f"prefill;dur={timings.prefill_ms:.1f}",
            f"ttft;dur={ttft_ms:.1f}",
            f"decode;dur={timings.decode_ms:.1f}",
        ]
    )


def _per_second(num_tokens: int, duration_ms: float) -> float | None:
    return num_tokens / duration_ms * 1000 if duration_ms > 0 else None
