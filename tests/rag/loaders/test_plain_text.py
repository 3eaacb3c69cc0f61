from __future__ import annotations

from tests.fakes.parsed_documents import Read, outline, texts

CODE = """import os

def first():
    a = 1

    return a

class Second:
    pass
"""


def test_blank_lines_tell_paragraphs(read: Read) -> None:
    document = read("a.txt", "\n\none\ntwo\n \t\n\nthree  \n")

    assert document.text == "\n\none\ntwo\n \t\n\nthree  \n"
    assert outline(document) == [("paragraph", "one\ntwo"), ("paragraph", "three")]


def test_markers_tell_lists(read: Read) -> None:
    document = read("a.txt", "- one\n- two\n\n1. three\n\n* four\n\n-five")

    assert [kind for kind, _ in outline(document)] == ["list", "list", "list", "paragraph"]


def test_underlines_tell_titles_and_their_order_the_level(read: Read) -> None:
    document = read("a.rst", "=====\nTop\n=====\n\nInner\n-----\nwords\n\nOther\n=====\n")

    assert outline(document) == [
        ("heading", "Top"),
        ("heading", "Inner"),
        ("paragraph", "words"),
        ("heading", "Other"),
    ]
    assert [block.level for block in document.blocks] == [1, 2, 0, 1]


def test_lines_that_underline_no_words_are_text(read: Read) -> None:
    document = read("a.txt", "-----\n-----\n\nA very long line that nobody would take for a title\n---\n")

    assert texts(document, "heading") == []


def test_code_is_cut_where_a_blank_line_ends_a_definition(read: Read) -> None:
    document = read("a.py", CODE)

    assert document.text == CODE
    assert texts(document, "code") == [
        "import os",
        "def first():\n    a = 1\n\n    return a",
        "class Second:\n    pass",
    ]


def test_code_keeps_its_first_indentation(read: Read) -> None:
    assert texts(read("a.py", "\n    indented = 1\n"), "code") == ["    indented = 1"]


def test_windows_line_ends_do_not_move_offsets(read: Read) -> None:
    document = read("a.txt", "one\r\n\r\ntwo\r\n")

    assert document.text == "one\n\ntwo\n"
    assert texts(document, "paragraph") == ["one", "two"]
