from __future__ import annotations

import pytest

from benchmarks.chat_figures import outcome_of, overlapping_gaps, quoted_share
from benchmarks.load import Answer, Traffic
from server.loadgen.figures import MAX_ERRORS, percentiles


def answered(*chunk_s: float, due_s: float = 0.0, num_tokens: int = 10) -> Answer:
    return Answer({}, due_s, sent_s=due_s, chunk_s=list(chunk_s), done_s=chunk_s[-1], num_tokens=num_tokens)


def failed(error: str) -> Answer:
    return Answer({}, due_s=0.0, error=error)


def test_percentiles_go_by_nearest_rank() -> None:
    values = [float(value) for value in range(20, 0, -1)]

    assert percentiles("ttft", values, 50, 95, 100) == {"ttft_p50_s": 10.0, "ttft_p95_s": 19.0, "ttft_max_s": 20.0}


def test_nothing_measured_is_no_figure_and_no_error() -> None:
    assert percentiles("gap", [], 50, 100) == {}


def test_only_whole_answers_count_as_throughput() -> None:
    traffic = Traffic([answered(1, 2), answered(1, 3), failed("status 500: no room")], 4.0, 0.1)

    outcome = outcome_of(traffic)

    assert outcome.figures["tokens_per_s"] == 5.0
    assert outcome.figures["completion_rate"] == pytest.approx(2 / 3)
    assert outcome.errors == ("status 500: no room",)


def test_when_all_fail_the_reasons_are_what_remains() -> None:
    traffic = Traffic([failed(f"reason {number % 5}") for number in range(50)], 1.0, 0.1)

    outcome = outcome_of(traffic)

    assert outcome.figures["completion_rate"] == 0
    assert outcome.errors == tuple(f"reason {number}" for number in range(MAX_ERRORS))


def test_latency_counts_from_when_the_request_was_due() -> None:
    late = Answer({}, due_s=10.0, sent_s=12.0, chunk_s=[13.0], done_s=14.0, num_tokens=1)

    figures = outcome_of(Traffic([late], 5.0, 0.1)).figures

    assert (figures["ttft_p50_s"], figures["latency_p50_s"], figures["send_delay_max_s"]) == (3.0, 4.0, 2.0)


def test_a_gap_that_overlaps_counts_whole() -> None:
    stream = answered(0, 1, 9, 10, 11)

    assert overlapping_gaps(stream, 5, 9.5) == [8, 1]


def test_quoted_share_tells_what_was_copied() -> None:
    source = "the mill of arden was built in 1891 from grey stone"

    assert quoted_share("the mill of arden was built", source) == 1
    assert quoted_share("a mill in arden is old now", source) == 0
    assert quoted_share("short", source) == 0
