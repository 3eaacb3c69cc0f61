from __future__ import annotations

from benchmarks.bars import held_to
from benchmarks.rag_table import STORE_ROWS, all_results, fill_tables
from benchmarks.tables import PAGE


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.rag_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- store-") == 7 and page.count("<!-- rag-") == 2
    assert fill_tables(page, all_results()) == page


def test_every_bar_of_the_results_is_in_the_table() -> None:
    results = all_results()
    results.pop("rag", None)  # has a table of its own

    measured = {(name, bar) for name, section in results.items() for bar in section["bars"]}
    assert measured <= {(row.section, row.bar) for row in STORE_ROWS}


def test_a_part_that_was_not_measured_says_so() -> None:
    assert fill_tables("<!-- rag-loads -->\n<!-- end -->", {}) == "<!-- rag-loads -->\nNot measured yet.\n<!-- end -->"


def test_what_was_missed_and_what_was_not_measured_says_so() -> None:
    results = {"vector_search": {"bars": {"search_p50_ms": held_to(20.0, most=15)}}}

    table = fill_tables("<!-- store-bars -->\n<!-- end -->", results)

    assert "| search in 100,000 chunks, p50 | 20 ms | <= 15 ms | **no** |" in table
    assert "| restart with 100,000 chunks until the first search | not measured |  |  |" in table


def test_a_figure_reaches_its_bar_exactly() -> None:
    assert held_to(2.0, least=2)["is_reached"] and held_to(0, most=0)["is_reached"]
    assert not held_to(1.999, least=2)["is_reached"]
