from __future__ import annotations

from benchmarks.input_table import all_results, fill_tables
from benchmarks.tables import PAGE


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.input_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- input-") == 4
    assert fill_tables(page, all_results()) == page


def test_what_was_not_measured_says_so() -> None:
    page = "<!-- input-schemas -->\n<!-- end -->"

    assert fill_tables(page, {}) == "<!-- input-schemas -->\nNot measured yet.\n<!-- end -->"


def test_a_silent_answer_is_not_left_out() -> None:
    results = {"input-schemas": {"counts": {"greedy": {"valid": 99, "silent": 1}}}}

    table = fill_tables("<!-- input-schemas -->\n<!-- end -->", results)

    assert "| ended, and not valid | 1 |" in table
