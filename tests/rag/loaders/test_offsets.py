"""Whatever a file holds, its blocks are in order, apart and in the text; and what was written is not lost."""

from __future__ import annotations

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.rag.parsing import ParseFailed
from tests.fakes.parsed_documents import Read

FRAGMENTS = [
    *("word", "é", "𝄞", "\u0301", "12", "Title", " ", "\t", "\n", "\n\n", "\r\n", "\r", "\f", "\x00", "\ufeff", "\xad"),
    *(
        "# ",
        "## ",
        "====\n",
        "----\n",
        "- ",
        "1. ",
        "> ",
        "```",
        "~~~",
        "    ",
        "| a | b |\n|---|---|\n",
        "<!--",
        "-->",
    ),
    *(
        "<p>",
        "</p>",
        "<h1>",
        "</h2>",
        "<ul>",
        "<li>",
        "</ul>",
        "<table>",
        "<tr>",
        "<td>",
        "</table>",
        "<pre>",
        "</pre>",
    ),
    *("<br>", "<div hidden>", "</div>", "<main>", "<!DOCTYPE html>", "&amp;", ",", ";", '"', "'", "---\n", "\\"),
]
contents = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=40).map("".join)
anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@anywhere
@given(contents, st.sampled_from(["txt", "md", "html", "csv", "json", "py", "eml", "rst"]))
def test_blocks_of_any_text_are_in_their_places(read: Read, content: str, extension: str) -> None:
    try:
        read(f"a.{extension}", content.encode(errors="replace"))
    except ParseFailed as exc:
        assert exc.message


@anywhere
@given(contents, st.sampled_from(["txt", "py"]))
def test_no_word_of_plain_text_is_outside_the_blocks(read: Read, content: str, extension: str) -> None:
    try:
        document = read(f"a.{extension}", content.encode(errors="replace"))
    except ParseFailed:
        return
    if document.media_type == "text/plain":
        inside = "".join(document.text[block.start : block.end] for block in document.blocks)
        assert letters(inside) == letters(document.text)


@anywhere
@given(st.lists(st.lists(st.text(string.ascii_letters + " ,;\"'\n", max_size=5), min_size=2, max_size=4), min_size=1))
def test_no_cell_of_a_table_is_lost(read: Read, rows: list[list[str]]) -> None:
    content = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    try:
        document = read("a.csv", content)
    except ParseFailed:
        assert not letters(content)
        return

    assert letters(document.text) == letters(content)


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
