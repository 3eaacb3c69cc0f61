from __future__ import annotations

import math

from server.engine.order import urgency
from server.engine.sequence import Sequence
from server.types import SamplingParams


def make_sequence(
    num_tokens: int, *, arrived_at: float = 0.0, priority: int = 0, deadline_at: float = math.inf
) -> Sequence:
    sampling = SamplingParams()
    return Sequence(
        "a",
        [1] * num_tokens,
        sampling,
        max_tokens=1,
        arrived_at=arrived_at,
        priority=priority,
        deadline_at=deadline_at,
    )


def first(*sequences: Sequence, now: float = 10.0) -> int:
    return min(range(len(sequences)), key=lambda n: urgency(sequences[n], now, s_per_token=0.01))


def test_the_shortest_prompt_goes_first() -> None:
    assert first(make_sequence(500), make_sequence(40), make_sequence(100)) == 1


def test_a_long_prompt_that_has_waited_for_its_own_length_goes_first() -> None:
    long = make_sequence(600)  # six seconds of compute

    assert first(long, make_sequence(10, arrived_at=5.0), now=5.0) == 1
    assert first(long, make_sequence(10, arrived_at=6.0), now=6.0) == 0


def test_priority_counts_before_everything() -> None:
    assert first(make_sequence(10, arrived_at=-1000.0), make_sequence(5000, arrived_at=10.0, priority=-1)) == 1


def test_a_deadline_that_can_just_be_met_hurries() -> None:
    """Five seconds of compute and six seconds left, against one second of compute."""
    newcomer = make_sequence(100, arrived_at=10.0)

    assert first(make_sequence(500, arrived_at=10.0, deadline_at=100.0), newcomer) == 1
    assert first(make_sequence(500, arrived_at=10.0, deadline_at=16.0), newcomer) == 0


def test_a_deadline_that_cannot_be_met_hurries_nobody() -> None:
    assert first(make_sequence(500, arrived_at=10.0, deadline_at=12.0), make_sequence(100, arrived_at=10.0)) == 1


def test_a_deadline_never_passes_those_who_have_waited_long() -> None:
    patient = make_sequence(100, arrived_at=-5.0)

    assert first(make_sequence(10, arrived_at=10.0, deadline_at=10.2), patient) == 1
