from __future__ import annotations

import pytest

from server.rag.parsing import ParseFailed
from tests.fakes.parsed_documents import Read, outline
from tests.fakes.pdf_file import pdf


def test_lines_make_paragraphs_by_the_gaps_between_them(read: Read) -> None:
    page = [(12, 700, "One line"), (12, 686, "and its second."), (12, 650, "Another."), (12, 636, "And more.")]

    assert outline(read("a.pdf", pdf(page))) == [
        ("paragraph", "One line\nand its second."),
        ("paragraph", "Another.\nAnd more."),
    ]


def test_large_type_makes_headings_by_size(read: Read) -> None:
    body = "This is what most of the document is set in, line after line."
    page = [(24, 700, "Title"), (16, 660, "Section"), (12, 630, body), (16, 600, "Other"), (12, 570, body)]

    document = read("a.pdf", pdf(page))

    assert [(kind, text[:7]) for kind, text in outline(document)] == [
        ("heading", "Title"),
        ("heading", "Section"),
        ("paragraph", "This is"),
        ("heading", "Other"),
        ("paragraph", "This is"),
    ]
    assert [block.level for block in document.blocks] == [1, 2, 0, 2, 0]


def test_blocks_know_their_page(read: Read) -> None:
    document = read("a.pdf", pdf([(12, 700, "first")], [], [(12, 700, "third")]))

    assert [(block.page, document.text[block.start : block.end]) for block in document.blocks] == [
        (1, "first"),
        (3, "third"),
    ]


def test_a_second_column_is_not_joined_to_the_first(read: Read) -> None:
    page = [(12, 100, "left"), (12, 86, "below"), (12, 700, "right"), (12, 686, "under")]

    assert outline(read("a.pdf", pdf(page))) == [("paragraph", "left\nbelow"), ("paragraph", "right\nunder")]


def test_a_word_that_a_hyphen_divides_is_whole_again(read: Read) -> None:
    page = [(12, 700, "This is an exam-"), (12, 686, "ple of it, as long"), (12, 672, "as three lines.")]

    assert outline(read("a.pdf", pdf(page))) == [
        ("paragraph", "This is an example of it, as long\nas three lines."),
    ]


def test_a_table_of_contents_has_no_headings(read: Read) -> None:
    page = [(24, 700, "Section . . . . . . 1"), (12, 600, "Most of this document is in this size.")]

    assert [kind for kind, _ in outline(read("a.pdf", pdf(page)))] == ["paragraph", "paragraph"]


def test_letters_beyond_ascii_are_read(read: Read) -> None:
    assert read("a.pdf", pdf([(12, 700, "Größe (Ø) naïve – “x”")])).text == "Größe (Ø) naïve – “x”"


def test_a_scan_is_told_what_it_needs(read: Read) -> None:
    with pytest.raises(ParseFailed, match="no text on its 2 pages; run a scan through text recognition"):
        read("a.pdf", pdf([], []))


def test_an_encrypted_file_is_refused(read: Read) -> None:
    key = "<" + "00" * 32 + ">"
    trailer = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >> /ID [<{'00' * 16}> <{'00' * 16}>]"

    with pytest.raises(ParseFailed, match="encrypted") as caught:
        read("a.pdf", pdf([(12, 700, "words")], trailer=trailer))

    assert caught.value.code == "invalid_file"


def test_pages_are_counted_before_they_are_read(read: Read) -> None:
    with pytest.raises(ParseFailed, match="2 pages, more than 1"):
        read("a.pdf", pdf([(12, 700, "a")], [(12, 700, "b")]), max_pages=1)


def test_the_text_is_limited(read: Read) -> None:
    with pytest.raises(ParseFailed, match="of text; split it"):
        read("a.pdf", pdf(*[[(12, 700, "words " * 10)]] * 50), max_text_bytes=1000)
