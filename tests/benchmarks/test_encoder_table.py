from __future__ import annotations

from benchmarks.encoder_table import fill_tables
from benchmarks.results import EMBEDDINGS, RERANK, load_results
from benchmarks.tables import PAGE


def test_the_tables_of_the_page_are_what_was_measured() -> None:
    """When this fails: `python -m benchmarks.encoder_table`."""
    page = PAGE.read_text(encoding="utf-8")

    assert page.count("<!-- embedding-") == 5 and page.count("<!-- rerank-") == 3
    assert fill_tables(page, load_results(EMBEDDINGS), load_results(RERANK)) == page


def test_a_load_that_was_not_measured_says_so() -> None:
    table = fill_tables("<!-- embedding-bars -->\n<!-- end -->", {"loads": {}}, {})

    assert "16 clients x lists of 8 | texts/s | not measured | Infinity | not measured | " in table
    assert "padding | not measured |  |  |  | <= 10 % |  |" in table
