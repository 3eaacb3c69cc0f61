from __future__ import annotations

import io
import zipfile
from typing import Any

from docx.enum.style import WD_STYLE_TYPE

from tests.fakes.office_files import docx_file, docx_of_body, with_members
from tests.fakes.parsed_documents import Read, outline

HIDDEN, SHOWN = "<w:vanish/>", '<w:vanish w:val="0"/>'


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>"


def test_headings_paragraphs_lists_and_tables_are_told_apart(read: Read) -> None:
    def fill(document: Any) -> None:
        document.add_heading("Title", 0)
        document.add_heading("Section", 2)
        document.add_paragraph("Some ").add_run("bold").bold = True
        document.add_paragraph("one", style="List Bullet")
        document.add_paragraph("two", style="List Number")
        table = document.add_table(2, 2)
        for cell, text in zip([cell for row in table.rows for cell in row.cells], "abcd", strict=True):
            cell.text = text
        document.add_paragraph("end\ttab\nline")

    document = read("a.docx", docx_file(fill))

    assert outline(document) == [
        ("heading", "Title"),
        ("heading", "Section"),
        ("paragraph", "Some bold"),
        ("list", "- one\n- two"),
        ("table", "a | b\nc | d"),
        ("paragraph", "end\ttab\nline"),
    ]
    assert [block.level for block in document.blocks if block.level] == [1, 2]


def test_a_style_made_from_a_heading_is_one(read: Read) -> None:
    def fill(document: Any) -> None:
        style = document.styles.add_style("Chapter", WD_STYLE_TYPE.PARAGRAPH)
        style.base_style = document.styles["Heading 3"]
        document.add_paragraph("Words", style="Chapter")

    [block] = read("a.docx", docx_file(fill)).blocks

    assert (block.kind, block.level) == ("heading", 3)


def test_styles_based_on_each_other_do_no_harm(read: Read) -> None:
    def fill(document: Any) -> None:
        style = document.styles.add_style("Odd", WD_STYLE_TYPE.PARAGRAPH)
        style.base_style = style
        document.add_paragraph("words", style="Odd")

    assert read("a.docx", docx_file(fill)).text == "words"


def test_insertions_and_controls_are_read_but_not_deletions_and_hidden_text(read: Read) -> None:
    body = (
        f"<w:p>{run('a')}<w:ins>{run('b')}</w:ins><w:del><w:r><w:delText>x</w:delText></w:r></w:del>"
        f"<w:moveFrom>{run('x')}</w:moveFrom>{run('x', HIDDEN)}{run('c', SHOWN)}</w:p>"
        f"<w:sdt><w:sdtContent><w:p>{run('d')}</w:p></w:sdtContent></w:sdt>"
    )

    assert read("a.docx", docx_of_body(body)).text == "abc\n\nd"


def test_a_text_box_is_read_once(read: Read) -> None:
    box = f"<w:txbxContent><w:p>{run('boxed')}</w:p></w:txbxContent>"
    choice = '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
    twice = f"{choice}<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"

    assert read("a.docx", docx_of_body(f"<w:p><w:r>{twice}</w:r></w:p>")).text == "boxed"


def test_a_frame_of_one_cell_is_no_table(read: Read) -> None:
    cell = f"<w:tc><w:p>{run('one')}</w:p><w:p>{run('two')}</w:p></w:tc>"

    assert outline(read("a.docx", docx_of_body(f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>"))) == [
        ("paragraph", "one"),
        ("paragraph", "two"),
    ]


def test_cells_of_a_row_stay_on_one_line(read: Read) -> None:
    cell = f"<w:tc><w:p>{run('one')}</w:p><w:p>{run('two')}</w:p></w:tc>"

    assert read("a.docx", docx_of_body(f"<w:tbl><w:tr>{cell}{cell}</w:tr></w:tbl>")).text == "one two | one two"


def test_a_document_with_macros_is_read_without_them(read: Read) -> None:
    plain = docx_file(lambda document: document.add_heading("Words", 1))
    name = "[Content_Types].xml"
    main = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = zipfile.ZipFile(io.BytesIO(plain)).read(name)
    macros = with_members(plain, {name: types.replace(main, b"application/vnd.ms-word.document.macroEnabled.main+xml")})

    assert outline(read("a.docm", macros)) == [("heading", "Words")]
