"""From what clients saw to figures: throughput, latencies, gaps. Pure functions.

Throughput is that of a window of time: what went on when it closed counts with its share, so that neither the last
answers, which few clients wait for, nor answers longer than the window make a server look slow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from server.loadgen.answer import Answer
from server.loadgen.exchange import Reply

Figures = dict[str, float]
"""Figure by name; times in seconds. One that could not be taken, because nothing was answered, is not there."""

MAX_ERRORS = 3
"""Distinct error texts that are kept of a run: hundreds of requests tend to fail for one reason."""


@dataclass(frozen=True)
class Window:
    """The time that throughput is measured in, on the clock of the answers.

    Attributes:
        length_s: What is divided by.
    """

    begin_s: float
    end_s: float
    length_s: float

    @classmethod
    def of_all(cls, length_s: float) -> Self:
        """For loads of so many requests: all of them count."""
        return cls(-math.inf, math.inf, length_s)

    def share_of(self, answer: Answer | Reply) -> float:
        """Which part of the time that an answer took lies within."""
        inside_s = min(answer.done_s, self.end_s) - max(answer.due_s, self.begin_s)
        return max(0.0, inside_s) / answer.latency_s if answer.latency_s > 0 else 1.0

    def tokens_of(self, answer: Answer) -> float:
        """How many tokens of an answer arrived within; those of one answer count as evenly spread over its chunks."""
        if not answer.chunk_s:
            return 0.0
        num_inside = sum(self.begin_s <= at_s <= self.end_s for at_s in answer.chunk_s)
        return num_answer_tokens(answer) * num_inside / len(answer.chunk_s)


def chat_figures(answers: Sequence[Answer], window: Window) -> Figures:
    """Of chats; there is at least one answer."""
    good = [answer for answer in answers if not answer.error]
    return {
        "completion_rate": len(good) / len(answers),
        "tokens_per_s": sum(map(window.tokens_of, good)) / window.length_s,
        "requests_per_s": sum(map(window.share_of, good)) / window.length_s,
        **percentiles("ttft", [answer.ttft_s for answer in good if answer.chunk_s], 50, 95),
        **percentiles("latency", [answer.latency_s for answer in good], 50, 95),
        **percentiles("gap", [gap for answer in good for gap in answer.gaps_s], 50, 95, 99, 100),
        **_mean_tokens(good),
        **_decode_speed(good),
    }


def reply_figures(replies: Sequence[Reply], window: Window) -> Figures:
    """Of requests that are answered in one piece; there is at least one."""
    good = [reply for reply in replies if not reply.error]
    figures = {"completion_rate": len(good) / len(replies)}
    if not good:
        return figures
    return {
        **figures,
        "items_per_s": sum(reply.num_items * window.share_of(reply) for reply in good) / window.length_s,
        "requests_per_s": sum(map(window.share_of, good)) / window.length_s,
        **_input_tokens(good, window),
        **percentiles("latency", [reply.latency_s for reply in good], 50, 95, 99),
    }


def num_answer_tokens(answer: Answer) -> int:
    """As the server counts them, or a token for each chunk where it does not say."""
    return answer.num_tokens or len(answer.chunk_s)


def percentiles(name: str, values: Iterable[float], *percents: int) -> Figures:
    """`{name}_p50_s` and so on, by nearest rank; 100 is `{name}_max_s`. Empty when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        f"{name}_{'max' if percent == 100 else f'p{percent}'}_s": ordered[
            max(0, math.ceil(len(ordered) * percent / 100) - 1)
        ]
        for percent in percents
    }


def distinct_errors(errors: Iterable[str]) -> tuple[str, ...]:
    """The first few; empty texts are no errors."""
    return tuple(dict.fromkeys(error[:500] for error in errors if error))[:MAX_ERRORS]


def _input_tokens(good: Sequence[Reply], window: Window) -> Figures:
    if not any(reply.num_tokens for reply in good):
        return {}
    return {
        "input_tokens_per_s": sum(reply.num_tokens * window.share_of(reply) for reply in good) / window.length_s,
        "mean_item_tokens": sum(reply.num_tokens for reply in good) / sum(reply.num_items for reply in good),
    }


def _mean_tokens(good: Sequence[Answer]) -> Figures:
    """Tokens of a request: that all servers were given the same work, and what their caches spared them."""
    if not good:
        return {}
    return {
        "mean_prompt_tokens": statistics.fmean(answer.num_prompt_tokens for answer in good),
        "mean_cached_tokens": statistics.fmean(answer.num_cached_tokens for answer in good),
        "mean_answer_tokens": statistics.fmean(map(num_answer_tokens, good)),
    }


def _decode_speed(good: Sequence[Answer]) -> Figures:
    """Tokens a second of one stream once it has begun: what remains when prompts cost nothing."""
    streams = [answer for answer in good if len(answer.chunk_s) > 1]
    seconds = sum(answer.chunk_s[-1] - answer.chunk_s[0] for answer in streams)
    return (
        {"stream_tokens_per_s": sum(num_answer_tokens(answer) - 1 for answer in streams) / seconds} if seconds else {}
    )
