from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from benchmarks.prompts import Prompts
from benchmarks.results import SOAK, load_results
from benchmarks.soak_figures import Span, lasting_zombies, minute_rows, missed, slope_per_hour, summarise
from benchmarks.soak_table import ROWS, fill_tables
from benchmarks.soak_traffic import Client, Seen, Sort, WrongAnswer, keep_coming
from benchmarks.soak_watch import OTHERS, SERVER, Held, Sample
from benchmarks.tables import PAGE

HALF_AN_HOUR = Span(0.0, 1800.0)
FIRST, LAST = 600.0, 1500.0
"""Within the first and the last third of what counts."""


def samples(*, memory_mb: float = 0.0, fds: int = 0) -> list[Sample]:
    """One each ten seconds, of a server that grows by so much after twenty minutes."""
    grown = Held(100.0 + memory_mb, 20 + fds, 8)
    return [Sample(float(at_s), {SERVER: grown if at_s > 1200 else Held(100.0, 20, 8)}) for at_s in range(0, 1800, 10)]


def seen(first_s: float = 1.0, last_s: float = 1.0) -> Seen:
    return Seen({"chat": [(10.0, 9.0), (FIRST, first_s), (LAST, last_s)]})


def summary(found: list[Sample], of: Seen | None = None, *, unchanged: bool = True) -> dict[str, Any]:
    return summarise(HALF_AN_HOUR, found, of or seen(), are_processes_unchanged=unchanged)


def test_the_warm_up_does_not_count() -> None:
    assert HALF_AN_HOUR.counted().begin_s == 300
    first, last = HALF_AN_HOUR.thirds()

    assert (first.begin_s, first.end_s) == pytest.approx((300, 800))
    assert (last.begin_s, last.end_s) == pytest.approx((1300, 1800))


def test_a_steady_slope_is_found_through_noise_that_cancels_out() -> None:
    series = [(float(at_s), 100 + at_s / 3600 * 12 + (1 if at_s % 20 else -1)) for at_s in range(0, 36_000, 10)]

    assert slope_per_hour(series) == pytest.approx(12, abs=0.05)
    assert slope_per_hour([(1.0, 5.0)]) is None


def test_a_good_soak_misses_nothing() -> None:
    found = summary(samples())

    assert missed(found) == []
    assert found["memory_mb"] == [100, 100]
    assert found["slope_mb_per_hour"] == 0
    assert all(bar["is_reached"] for bar in found["bars"].values())


def test_what_stays_counts_and_what_comes_and_goes_does_not() -> None:
    calm = samples()
    calm[80] = Sample(800.0, {SERVER: Held(900.0, 400, 8), OTHERS: Held(300.0, 9, 1)})

    assert missed(summary(calm)) == []
    assert missed(summary(samples(memory_mb=100.0, fds=5))) == []
    assert missed(summary(samples(memory_mb=100.5))) == ["growth_mb is 100.5"]
    assert missed(summary(samples(fds=6))) == ["fds is 6"]
    assert missed(summary(samples(fds=-6))) == ["fds is 6"]


def test_failures_zombies_and_replaced_processes_are_missed() -> None:
    found = samples()
    for place in (50, 51):
        found[place] = Sample(found[place].at_s, found[place].roles, frozenset({7}))

    bad = summary(found, Seen(failures=Counter({"chat: 500": 2})), unchanged=False)

    assert missed(bad) == ["failures is 2", "zombies is 1", "processes_replaced is 1"]


def test_a_zombie_is_one_that_is_still_there_at_the_next_look() -> None:
    looks = [Sample(float(at_s), {}, frozenset(pids)) for at_s, pids in enumerate([{1}, {2, 3}, {3}, set(), {1}])]

    assert lasting_zombies(looks) == {3}


def test_slower_answers_are_told_but_do_not_fail() -> None:
    found = summary(samples(), seen(first_s=1.0, last_s=1.3))

    assert found["requests"]["chat"]["ratio"] == 1.3
    assert not found["bars"]["latency_ratio"]["is_reached"]
    assert missed(found) == []


def test_a_third_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="allow more --minutes"):
        summary(samples()[:100])


def test_each_minute_has_what_was_seen_in_it() -> None:
    rows = minute_rows(HALF_AN_HOUR, samples(memory_mb=50.0), seen(last_s=2.0))

    assert [row["minute"] for row in rows] == list(range(1, 31))
    assert rows[0]["roles"][SERVER]["memory_mb"] == 100
    assert rows[29]["roles"][SERVER]["memory_mb"] == 150
    assert rows[25]["requests"]["chat"] == {"count": 1, "p50_s": 2.0, "p95_s": 2.0}
    assert rows[26]["requests"]["chat"] == {"count": 0}


async def test_a_wrong_answer_is_counted_and_does_not_end_its_client() -> None:
    """A client that ended at the first failure would leave the rest of the half hour without its traffic."""
    is_over, client, visits = asyncio.Event(), Client(None, Prompts(1), Seen()), []  # type: ignore[arg-type]

    async def visit(_client: Client) -> None:
        visits.append(1)
        if len(visits) == 3:
            is_over.set()
        raise WrongAnswer("500") if len(visits) < 3 else KeyError("choices")

    await keep_coming(Sort(visit, 1, 0.0), client, is_over)

    assert client.seen.failures == {"visit: WrongAnswer: 500": 2, "visit: KeyError: 'choices'": 1}


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.soak_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- soak-") == 3
    assert fill_tables(page, load_results(SOAK)) == page


def test_the_tables_have_every_bar_process_and_kind() -> None:
    found = summary(samples(memory_mb=101.0), seen(last_s=1.5))
    marks = "".join(f"<!-- soak-{name} -->\n<!-- end -->\n" for name in ("bars", "processes", "latencies"))

    page = fill_tables(marks, {"summary": found})

    assert {bar for bar, _, _ in ROWS} == set(found["bars"])
    assert "growth from the first third to the last | 101 MB | <= 100 MB | **no** |" in page
    assert "| server | 100 to 201 |" in page
    assert "| chat | 3 | 1000 to 1500 | 1000 to 1500 | 1.5 |" in page
