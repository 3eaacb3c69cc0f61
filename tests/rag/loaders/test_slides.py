from __future__ import annotations

from typing import Any

from pptx.util import Inches

from tests.fakes.office_files import pptx_file
from tests.fakes.parsed_documents import Read, outline

BOX = [Inches(1)] * 4


def test_a_slide_is_a_page_with_its_title_its_points_and_its_notes(read: Read) -> None:
    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = "Title"
        slide.placeholders[1].text = "one\ntwo"
        slide.placeholders[1].text_frame.paragraphs[1].level = 1
        slide.notes_slide.notes_text_frame.text = "say this"
        other = deck.slides.add_slide(deck.slide_layouts[6])
        other.shapes.add_textbox(*BOX).text_frame.text = "loose"

    document = read("a.pptx", pptx_file(fill))

    assert outline(document) == [
        ("heading", "Title"),
        ("list", "- one\n  - two"),
        ("paragraph", "say this"),
        ("paragraph", "loose"),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 1, 2]


def test_tables_and_groups_are_read(read: Read) -> None:
    def fill(deck: Any) -> None:
        slide = deck.slides.add_slide(deck.slide_layouts[6])
        table = slide.shapes.add_table(2, 2, *BOX).table
        for cell, text in zip(table.iter_cells(), "abcd", strict=True):
            cell.text = text
        group = slide.shapes.add_group_shape().shapes.add_group_shape()
        group.shapes.add_textbox(*BOX).text_frame.text = "grouped"

    assert outline(read("a.pptx", pptx_file(fill))) == [("table", "a | b\nc | d"), ("paragraph", "grouped")]
