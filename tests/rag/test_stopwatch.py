from __future__ import annotations

import pytest

from server.rag.stopwatch import Stopwatch


def test_laps_of_one_name_add_up_and_the_total_holds_them() -> None:
    watch = Stopwatch()

    for _ in range(2):
        with watch.lap("a"):
            sum(range(10_000))
    with pytest.raises(ValueError), watch.lap("b"):
        raise ValueError

    times = watch.times_ms()
    assert list(times) == ["a", "b", "total"]
    assert times["total"] >= times["a"] + times["b"] - 0.01
    assert times["a"] > 0
