from __future__ import annotations

from pathlib import Path

from benchmarks.doc_questions import Question, docstring_questions, index_questions
from server.rag.documents import ParsedDocument

PAGES = {
    "library/heapq.html": ParsedDocument("heapq\n\nheapq.nsmallest(n, iterable)\n\nReturn a list.", (), "text/html"),
    "reference/import.html": ParsedDocument("Import", (), "text/html"),
}


def test_a_docstring_asks_for_where_its_function_is_described() -> None:
    [question] = docstring_questions(PAGES)

    assert question == Question("Find the n smallest elements in a dataset.", "library/heapq.html", 7)


def test_an_entry_of_the_index_asks_for_its_page(tmp_path: Path) -> None:
    (tmp_path / "genindex-all.html").write_text(
        '<table class="genindextable"><tr><td><ul><li>package<ul>'
        '<li><a href="reference/import.html#index-3">regular (in module x)</a>, '
        '<a href="reference/import.html#index-4">[1]</a></li>'
        '<li><a href="elsewhere.html#index-5">namespace</a></li>'
        '<li><a href="reference/import.html#module-y">not written by a person</a></li>'
        '</ul></li><li><a href="reference/import.html#index-6">hooks</a></li></ul></td></tr></table>'
    )

    assert index_questions(tmp_path, PAGES) == [Question("package regular", "reference/import.html")]
