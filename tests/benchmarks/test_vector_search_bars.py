from __future__ import annotations

import numpy as np

from benchmarks.vector_search import agree, bars

ALLOWED = np.array([1, 2, 3], np.int64)
BEST = np.array([0.9, 0.5], np.float32)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_a_search_is_exact_if_its_scores_are_the_best_and_its_chunks_allowed() -> None:
    assert agree(ids(1, 2), BEST, ALLOWED, BEST)
    assert agree(ids(1, 3), BEST, ALLOWED, BEST)  # a tie
    assert not agree(ids(1, 9), BEST, ALLOWED, BEST)
    assert not agree(ids(1, 2), np.array([0.9, 0.4], np.float32), ALLOWED, BEST)
    assert not agree(ids(1), BEST[:1], ALLOWED, BEST)


def test_bars_take_the_worse_of_what_was_measured_twice() -> None:
    times = {"p50": 10.0, "p95": 20.0}
    restarts = {
        name: {"imported_rss_mb": 100, "later_rss_mb": rss, "first_search_s": seconds}
        for name, rss, seconds in (("with_index_file", 300, 1.0), ("without_index_file", 550, 4.0))
    }
    section = {
        "search_ms": {"idle": times, "filter_1_percent": times, "during_ingestion": {"p50": 1.0, "p95": 50.0}},
        "served": {"search_ms": times, "rss_mb": 400, "empty_store_rss_mb": 150, "first_search_s": 6.0},
        "restart": restarts,
        "filter_exact_share": {"dense": 1.0, "lexical": 0.98},
        "insert_ratio": 1.0,
    }

    found = bars(section)

    assert (found["memory_mb"]["measured"], found["first_search_s"]["measured"]) == (450, 4)
    missed = {name for name, bar in found.items() if not bar["is_reached"]}
    assert missed == {"memory_mb", "served_first_search_s", "filter_exact_share", "ingestion_p95_ratio"}
