from __future__ import annotations

from benchmarks.bars import Bar, judge
from benchmarks.embeddings import entrants
from benchmarks.encoder_bars import CURVES, EMBEDDING_BARS, OTHERS, RERANK_BARS
from benchmarks.encoder_loads import EMBEDDING_LOADS, RERANK_LOADS
from benchmarks.machine import spread


def loads(**roles: dict[str, float]) -> dict[str, object]:
    servers = {
        role: {"figures": {name: spread([value]) for name, value in each.items()}} for role, each in roles.items()
    }
    return {"bulk": {"servers": servers}}


def test_every_bar_compares_what_takes_part_in_its_load() -> None:
    taking_part = {(load, entrant.role) for entrant in entrants() for load in entrant.loads}

    for bar in EMBEDDING_BARS:
        assert {(bar.load, "hearth"), (bar.load, bar.against or "hearth")} <= taking_part


def test_every_load_is_judged_or_drawn() -> None:
    judged = {bar.load for bar in (*EMBEDDING_BARS, *RERANK_BARS)}
    drawn = {load for ticks in CURVES.values() for load in ticks.values()}

    assert {load.name for load in (*EMBEDDING_LOADS, *RERANK_LOADS)} == judged | drawn | {"probe"}
    assert {bar.against for bar in (*EMBEDDING_BARS, *RERANK_BARS)} <= {*OTHERS, None}


def test_a_latency_is_held_against_the_time_of_a_batch() -> None:
    bar = Bar(load="bulk", figure="latency_p99_s", label="", against="bare", other_figure="batch_p50_s", most=2.0)

    verdict = judge(bar, loads(hearth={"latency_p99_s": 0.05}, bare={"batch_p50_s": 0.04, "latency_p99_s": 9.0}))

    assert (verdict.ratio, verdict.is_reached) == (1.25, True)


def test_a_figure_without_rival_is_judged_by_its_worst_repetition() -> None:
    padding = {"figures": {"padding_share": spread([0.02, 0.11])}}
    bar = Bar(load="bulk", figure="padding_share", label="", against=None, most=0.1)

    assert judge(bar, {"bulk": {"servers": {"hearth": padding}}}).is_reached is False
