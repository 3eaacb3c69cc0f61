from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bars import held_to
from benchmarks.load import Answer, ask
from benchmarks.overload import Memory
from benchmarks.overload_table import ROWS, fill_tables
from benchmarks.results import OVERLOAD, load_results
from benchmarks.tables import PAGE
from tests.fakes.upstream import CLOSE, upstream


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.overload_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- overload-") == 2
    assert fill_tables(page, load_results(OVERLOAD)) == page


def test_every_bar_of_the_results_is_in_the_table() -> None:
    measured = {(name, bar) for name, section in load_results(OVERLOAD).items() for bar in section["bars"]}

    assert measured <= {(section, bar) for section, bar, _, _ in ROWS}


def test_what_was_missed_says_so() -> None:
    results: dict[str, Any] = {"overload": {"bars": {"goodput": held_to(0.5, least=0.9)}}}

    table = fill_tables("<!-- overload-bars -->\n<!-- end -->", results)

    assert "| answered at 10 x capacity, by capacity | 0.5 | >= 0.9 | **no** |" in table
    assert "| of its requests, those that were answered | not measured |  |  |" in table


@pytest.mark.parametrize(("end_mb", "growth_mb"), [(100.0, 0.0), (150.0, 50.0)])
def test_growth_is_from_the_first_to_the_last_fifth(end_mb: float, growth_mb: float) -> None:
    memory = Memory([(float(at_s), 100.0 if at_s < 80 else end_mb) for at_s in range(100)])
    memory.samples[3] = (3.0, 900.0)  # while everything is loaded

    assert memory.growth_mb(since_s=10.0) == growth_mb


async def test_a_refusal_is_told_from_a_failure_and_says_when_to_come_back() -> None:
    refusal = b"HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}"
    async with upstream(lambda _: [refusal]) as server:
        refused = await ask(server.port, Answer({}, due_s=0.0), headers={"x-tenant": "a"})
    async with upstream(lambda _: [CLOSE]) as silent:
        cut = await ask(silent.port, Answer({}, due_s=0.0))

    assert server.requests[0].headers["x-tenant"] == "a"
    assert (refused.status, refused.retry_after_s) == (503, 7.0)
    assert (cut.status, cut.retry_after_s) == (0, None)
