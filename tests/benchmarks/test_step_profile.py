from __future__ import annotations

from benchmarks.step_cost import GREEDY, PARTS, measure_overhead
from benchmarks.stopwatch import Stopwatch


def test_the_stub_carries_the_real_engine_through_its_steps() -> None:
    section = measure_overhead(GREEDY, num_sequences=8, num_steps=2)

    assert section["step_ms"]["p50"] > 0
    assert set(section["parts_ms"]) == set(PARTS)
    assert all(section["parts_ms"][part] > 0 for part in ("schedule", "sample", "commit", "text"))


def test_time_inside_a_watched_call_is_not_counted_twice() -> None:
    class Nested:
        def outer(self) -> int:
            return sum(self.inner() for _ in range(100))

        def inner(self) -> int:
            return sum(range(2000))

    nested, watch = Nested(), Stopwatch()
    watch.watch("outer", nested, "outer")
    watch.watch("inner", nested, "inner")

    assert nested.outer() == 100 * sum(range(2000))
    assert 0 < watch.self_s["outer"] < watch.self_s["inner"]
