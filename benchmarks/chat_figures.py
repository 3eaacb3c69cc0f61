"""What benchmarks of chats add to the load generator's figures. Pure functions; knows no server."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from benchmarks.figures import Outcome
from benchmarks.load import Answer, Traffic
from server.loadgen.figures import Figures, Window, chat_figures, distinct_errors


def outcome_of(traffic: Traffic) -> Outcome:
    """The figures that every load has."""
    answers = traffic.answers
    good = [answer for answer in answers if not answer.error]
    figures = {
        **chat_figures(answers, Window.of_all(traffic.wall_s)),
        **_quoted(good),
        "client_cpu_share": traffic.client_cpu_share,
        "send_delay_max_s": max((answer.sent_s - answer.due_s for answer in good), default=0.0),
    }
    return Outcome(figures, distinct_errors(answer.error for answer in answers))


def overlapping_gaps(answer: Answer, begin_s: float, end_s: float) -> list[float]:
    """The gaps between chunks that overlap [begin_s, end_s]. A gap counts whole: its stream stood still so long."""
    pairs = zip(answer.chunk_s, answer.chunk_s[1:], strict=False)
    return [after - before for before, after in pairs if after > begin_s and before < end_s]


def _quoted(good: Sequence[Answer]) -> Figures:
    if not good:
        return {}
    return {"quoted_share": statistics.fmean(quoted_share(answer.text, json.dumps(answer.body)) for answer in good)}


def quoted_share(text: str, source: str, *, length: int = 4) -> float:
    """Share of the runs of `length` words of a text that stand in the source too."""
    runs, known = (
        [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
        for words in (text.split(), source.split())
    )
    return sum(map(set(known).__contains__, runs)) / len(runs) if runs else 0.0
