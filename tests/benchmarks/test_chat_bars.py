from __future__ import annotations

import pytest

from benchmarks.bars import Bar, judge
from benchmarks.chat_bars import BARS
from benchmarks.chat_loads import LOADS
from benchmarks.machine import spread

RATE = Bar(load="a1", figure="tokens_per_s", label="tok/s", least=1.05)
LATENCY = Bar(load="a1", figure="ttft_p95_s", label="TTFT", most=0.25)


def loads(figure: str, **values: tuple[float, ...]) -> dict[str, object]:
    return {"a1": {"servers": {role: {"figures": {figure: spread(each)}} for role, each in values.items()}}}


@pytest.mark.parametrize(("hearth", "is_reached"), [(105.0, True), (104.0, False)])
def test_a_rate_has_to_be_so_much_higher(hearth: float, is_reached: bool) -> None:
    assert judge(RATE, loads("tokens_per_s", hearth=(hearth,), best=(100.0,))).is_reached is is_reached


@pytest.mark.parametrize(("hearth", "is_reached"), [(1.0, True), (1.1, False)])
def test_a_latency_has_to_be_so_much_lower(hearth: float, is_reached: bool) -> None:
    assert judge(LATENCY, loads("ttft_p95_s", hearth=(hearth,), best=(4.0,))).is_reached is is_reached


def test_the_worst_ratio_is_the_least_favourable_pair() -> None:
    verdict = judge(RATE, loads("tokens_per_s", hearth=(90, 100, 120), best=(50, 60, 100)))

    assert (verdict.worst, verdict.best) == (0.9, 2.4)


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(RATE, loads("tokens_per_s", hearth=(100.0,))).is_reached is None
    assert judge(RATE, {}).is_reached is None


def test_every_request_of_every_repetition_has_to_complete() -> None:
    bar = Bar(load="a1", figure="completion_rate", label="", against=None, least=1.0)

    assert judge(bar, loads("completion_rate", hearth=(1.0, 1.0, 1.0))).is_reached
    assert judge(bar, loads("completion_rate", hearth=(1.0, 1.0, 0.99))).is_reached is False


def test_every_bar_belongs_to_a_load() -> None:
    assert {bar.load for bar in BARS} == {load.name for load in LOADS}
