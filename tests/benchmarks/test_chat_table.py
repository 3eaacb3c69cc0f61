from __future__ import annotations

from benchmarks.chat_table import fill_tables
from benchmarks.results import load_results
from benchmarks.tables import PAGE


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.chat_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- chat-") == 6
    assert fill_tables(page, load_results()) == page


def test_a_load_that_was_not_measured_says_so() -> None:
    table = fill_tables("<!-- chat-loads -->\n<!-- end -->", {"loads": {}})

    assert "(a64) unique prompts, 64 clients | tok/s | not measured | not measured" in table


def test_who_cannot_take_part_is_named() -> None:
    loads = {"c": {"servers": {"defaults": {"name": "llama-server", "figures": {}, "rejected": "only 4 streams run"}}}}

    assert "not measured | not measured | cannot take part" in fill_tables(
        "<!-- chat-loads -->\n<!-- end -->", {"loads": loads}
    )
