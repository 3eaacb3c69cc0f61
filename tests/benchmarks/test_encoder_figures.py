from __future__ import annotations

import orjson
import pytest

from benchmarks.encoder_figures import computed_items, figures_of
from server.loadgen.exchange import Reply


def reply(due_s: float, done_s: float, *, num_items: int = 8, error: str = "", num_cached: int = 0) -> Reply:
    return Reply(num_items, due_s, done_s, orjson.dumps({"usage": {"cached_inputs": num_cached}}), error)


def test_throughput_counts_whole_answers_from_the_first_request_to_the_last_answer() -> None:
    figures = figures_of([reply(10, 11), reply(10, 12), reply(12, 14, error="status 500")])

    assert (figures["items_per_s"], figures["requests_per_s"]) == (4.0, 0.5)
    assert figures["completion_rate"] == pytest.approx(2 / 3)


def test_latencies_are_those_of_whole_answers() -> None:
    figures = figures_of([reply(0, 1), reply(0, 3), reply(0, 9, error="status 500")])

    assert (figures["latency_p50_s"], figures["latency_p99_s"]) == (1, 3)


def test_when_all_fail_there_is_no_figure_but_that() -> None:
    assert figures_of([reply(0, 1, error="status 500")]) == {"completion_rate": 0}


def test_what_the_server_did_not_know_it_has_computed() -> None:
    assert computed_items([reply(0, 1, num_cached=8), reply(0, 1, num_cached=5)]) == 3
