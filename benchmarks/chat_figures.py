"""From what the clients of a chat saw to figures: throughput, latencies, gaps. Pure functions; knows no server."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from benchmarks.figures import Figures, Outcome, distinct_errors, percentiles
from benchmarks.load import Answer, Traffic


def outcome_of(traffic: Traffic) -> Outcome:
    """The figures that every load has."""
    answers = traffic.answers
    good = [answer for answer in answers if not answer.error]
    ttfts = [answer.ttft_s for answer in good if answer.chunk_s]
    gaps = [gap for answer in good for gap in answer.gaps_s]
    figures = {
        "completion_rate": len(good) / len(answers),
        "tokens_per_s": sum(answer.num_tokens for answer in good) / traffic.wall_s,
        "requests_per_s": len(good) / traffic.wall_s,
        **percentiles("ttft", ttfts, 50, 95),
        **percentiles("latency", [answer.latency_s for answer in good], 50, 95),
        **percentiles("gap", gaps, 50, 99, 100),
        **_means(good),
        **_decode_speed(good),
        "client_cpu_share": traffic.client_cpu_share,
        "send_delay_max_s": max((answer.sent_s - answer.due_s for answer in good), default=0.0),
    }
    return Outcome(figures, distinct_errors(answer.error for answer in answers))


def overlapping_gaps(answer: Answer, begin_s: float, end_s: float) -> list[float]:
    """The gaps between chunks that overlap [begin_s, end_s]. A gap counts whole: its stream stood still so long."""
    pairs = zip(answer.chunk_s, answer.chunk_s[1:], strict=False)
    return [after - before for before, after in pairs if after > begin_s and before < end_s]


def _means(good: Sequence[Answer]) -> Figures:
    """Tokens of a request: that all servers were given the same work, and what their caches spared them."""
    if not good:
        return {}
    return {
        "mean_prompt_tokens": statistics.fmean(answer.num_prompt_tokens for answer in good),
        "mean_cached_tokens": statistics.fmean(answer.num_cached_tokens for answer in good),
        "mean_answer_tokens": statistics.fmean(answer.num_tokens for answer in good),
        "quoted_share": statistics.fmean(quoted_share(answer.text, json.dumps(answer.body)) for answer in good),
    }


def _decode_speed(good: Sequence[Answer]) -> Figures:
    """Tokens a second of one stream once it has begun: what remains when prompts cost nothing."""
    streams = [answer for answer in good if len(answer.chunk_s) > 1]
    seconds = sum(answer.chunk_s[-1] - answer.chunk_s[0] for answer in streams)
    return {"stream_tokens_per_s": sum(answer.num_tokens - 1 for answer in streams) / seconds} if seconds else {}


def quoted_share(text: str, source: str, *, length: int = 4) -> float:
    """Share of the runs of `length` words of a text that stand in the source too."""
    runs, known = (
        [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
        for words in (text.split(), source.split())
    )
    return sum(map(set(known).__contains__, runs)) / len(runs) if runs else 0.0
