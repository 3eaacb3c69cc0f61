"""Files that are broken, or made to break a server, through the real parser. After each one a good file is read."""

from __future__ import annotations

import io
import random
import time
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from server.rag.parser import Parser
from server.rag.parsing import ParseFailed, ParserLimits
from tests.fakes.office_files import docx_file, docx_of_body, pptx_file, with_members, xlsx_file, zip_file
from tests.fakes.parsed_documents import check_blocks
from tests.fakes.pdf_file import pdf, pdf_of_streams

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = ParserLimits(
    timeout_s=30, max_memory_bytes=200 << 20, max_text_bytes=8 << 20, max_unpacked_bytes=64 << 20, max_members=1000
)

LAUGHS = "".join(f'<!ENTITY lol{n + 1} "{f"&lol{n};" * 10}">' for n in range(9))
DOCTYPE = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY lol0 "ha"><!ENTITY file SYSTEM "file:///etc/passwd">{LAUGHS}]>'
PARAGRAPH = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser() -> AsyncIterator[Parser]:
    parser = Parser(LIMITS)
    yield parser
    await parser.close()


def packed(content: bytes, times: int) -> bytes:
    """Deflate `content`, repeated, without ever holding all of it."""
    packer = zlib.compressobj()
    return b"".join(packer.compress(content) for _ in range(times)) + packer.flush()


def bomb(name: str, size: int) -> bytes:
    """A docx with a member that unpacks to `size` bytes."""
    target = io.BytesIO(docx_file(lambda _document: None))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return target.getvalue()


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def garbled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0x55 for byte in content[middle : middle + 200]) + content[middle + 200 :]


WORD = docx_file(lambda document: document.add_paragraph("words"))
SHEET = xlsx_file({"Sheet": [["a", "b"], [1, 2]]})
SLIDES = pptx_file(lambda deck: deck.slides.add_slide(deck.slide_layouts[0]))

HOSTILE = {
    "bomb.docx": (lambda: bomb("word/media/image1.png", 70 << 20), "invalid_file", "unpacks to more than 64 MB"),
    "ratio.docx": (lambda: bomb("word/media/image1.png", 40 << 20), "invalid_file", "times its size"),
    "many.docx": (lambda: zip_file({f"word/{n}": b"" for n in range(2000)}), "invalid_file", "1000 members"),
    "cut.docx": (lambda: truncated(WORD), "invalid_file", "without its end"),
    "cut.xlsx": (lambda: truncated(SHEET), "invalid_file", "without its end"),
    "cut.pptx": (lambda: truncated(SLIDES), "invalid_file", "without its end"),
    "garbled.docx": (lambda: garbled(WORD), "invalid_file", "damaged"),
    "garbled.xlsx": (lambda: garbled(SHEET), "invalid_file", "damaged"),
    "not-xml.docx": (lambda: with_members(WORD, {"word/document.xml": b"<w:"}), "invalid_file", "damaged"),
    "no-sheet.xlsx": (lambda: with_members(SHEET, {"xl/workbook.xml": b""}), "invalid_file", "damaged"),
    "deep.docx": (lambda: docx_of_body("<w:sdt>" * 5000 + "</w:sdt>" * 5000), "invalid_file", "damaged"),
    "cut.pdf": (lambda: pdf([(12, 700, "words")])[:100], "invalid_file", "damaged"),
    "no-pages.pdf": (lambda: b"%PDF-1.7\nnothing at all", "invalid_file", "damaged"),
    "scan.pdf": (lambda: pdf([]), "invalid_file", "text recognition"),
    "stream.pdf": (lambda: pdf_of_streams([packed(b"BT (words) Tj ET " * 60_000, 230)]), "invalid_file", ""),
    "twice.pdf": (
        lambda: pdf_of_streams([zlib.compress(packed(bytes(1 << 20), 250))], filters="/FlateDecode /FlateDecode"),
        "invalid_file",
        "",
    ),
    "runs.pdf": (
        lambda: pdf_of_streams([packed(b"\x81 " * (1 << 18), 4)], filters="/FlateDecode /RunLengthDecode"),
        "invalid_file",
        "text recognition",
    ),
    "laughs.docx": (
        lambda: docx_of_body(PARAGRAPH.format("words &lol9;"), before=DOCTYPE),
        "invalid_file",
        "damaged",
    ),
    "deep.json": (lambda: b"[" * 100_000 + b"]" * 100_000, "invalid_file", "nested too deeply"),
    "one-word.txt": (lambda: b"a" * (10 << 20), "invalid_file", "more than 8 MB of text"),
    "long.txt": (lambda: b"words " * (6 << 20), "invalid_file", "larger than 32 MB"),
    "empty.txt": (lambda: b"", "invalid_file", "is empty"),
    "blank.txt": (lambda: b" \n\t\n", "invalid_file", "has no text"),
}


@pytest.mark.parametrize("filename", HOSTILE)
async def test_a_hostile_file_fails_with_a_reason_and_nothing_else_does(
    parser: Parser, tmp_path: Path, filename: str
) -> None:
    make, code, words = HOSTILE[filename]
    path = tmp_path / "hostile"
    path.write_bytes(make())
    started = time.monotonic()

    with pytest.raises(ParseFailed) as caught:
        await parser.parse(path, filename)

    assert time.monotonic() - started < LIMITS.timeout_s
    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message
    await assert_reads_on(parser, tmp_path)


def looped_table() -> bytes:
    """A pdf whose table of objects names itself as the one before it."""
    content = pdf([(12, 700, "words")], trailer="/Prev 00000")
    return content.replace(b"/Prev 00000", b"/Prev %05d" % content.rindex(b"xref\n0 "))


HARMLESS = {
    "table.pdf": looped_table,
    "pages.pdf": lambda: pdf([(12, 700, "words")]).replace(b"/Kids [4", b"/Kids [2 0 R 4"),  # the list is on itself
    "script.pdf": lambda: pdf([(12, 700, "words")]).replace(
        b"/Catalog", b"/Catalog /OpenAction << /S /JavaScript /JS (while(1){}) >>"
    ),
    "file.docx": lambda: docx_of_body(PARAGRAPH.format("words &file;"), before=DOCTYPE),
    "deep.html": lambda: b"<div>" * 10_000 + b"<p>words",
    "tables.html": lambda: b"<table><tr><td>" * 3000 + b"words",
    "styled.html": lambda: b"".join(b"<p><b a=%d>words" % n for n in range(200)),
    "quotes.md": lambda: b">" * 100_000 + b"words",
    "nested.md": lambda: b"".join(b" " * n + b"- words\n" for n in range(1000)),
    "blank-lines.txt": lambda: b"words" + b"\n \t " * 200_000 + b"end",
    "spaces.md": lambda: b"words" + b" " * 1_000_000 + b"end",
    "comments.html": lambda: b"<!-->" * 1000 + b"words",
    "open-quote.csv": lambda: b'a,b\n"words' + b"\nx,y" * 100_000,
    "wide.xlsx": lambda: with_members(
        xlsx_file({"Sheet": [["words"]]}),
        {
            "xl/worksheets/sheet1.xml": (
                b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension '
                b'ref="A1:XFD1048576"/><sheetData><row r="1048576"><c r="XFD1048576" t="inlineStr"><is>'
                b"<t>words</t></is></c></row></sheetData></worksheet>"
            )
        },
    ),
}


@pytest.mark.parametrize("filename", HARMLESS)
async def test_a_hostile_file_may_be_read_but_does_no_harm(parser: Parser, tmp_path: Path, filename: str) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(HARMLESS[filename]())

    document = await parser.parse(path, filename)

    assert "words" in document.text
    assert "haha" not in document.text and "root:" not in document.text


async def test_entities_of_a_sheet_are_not_expanded(parser: Parser, tmp_path: Path) -> None:
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">'
        '<c r="A1" t="inlineStr"><is><t>words &lol9; &file;</t></is></c></row></sheetData></worksheet>'
    )
    path = tmp_path / "hostile"
    path.write_bytes(with_members(SHEET, {"xl/worksheets/sheet1.xml": (DOCTYPE + sheet).encode()}))

    with pytest.raises(ParseFailed):
        await parser.parse(path, "laughs.xlsx")

    await assert_reads_on(parser, tmp_path)


async def test_a_file_that_takes_for_ever_is_given_up(tmp_path: Path) -> None:
    """Every further element makes the HTML parser look through all that are open."""
    impatient = Parser(ParserLimits(timeout_s=4))
    path = tmp_path / "hostile"
    path.write_bytes(b"<div>" * 500_000)

    with pytest.raises(ParseFailed, match="more than 4 s"):
        await impatient.parse(path, "deep.html")

    await assert_reads_on(impatient, tmp_path)
    await impatient.close()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, drop some, repeat some; in an archive, in one of its members."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = rng.choice([name for name in archive.namelist() if name.endswith((".xml", ".rels"))])
            return with_members(content, {name: mutated(archive.read(name), rng)})
    for _ in range(rng.randint(1, 8)):
        start, size = rng.randrange(len(content)), rng.randint(1, 100)
        instead = rng.choice([rng.randbytes(1), b"", content[start : start + size] * 2])
        content = content[:start] + instead + content[start + size :]
    return content


@pytest.mark.parametrize("filename", ["a.docx", "a.xlsx", "a.pptx", "a.pdf"])
async def test_files_that_were_changed_at_random_are_read_or_refused(
    parser: Parser, tmp_path: Path, filename: str
) -> None:
    path, rng = tmp_path / "hostile", random.Random(filename)
    original = {"a.docx": WORD, "a.xlsx": SHEET, "a.pptx": SLIDES, "a.pdf": pdf([(12, 700, "words")])}[filename]
    for _ in range(25):
        path.write_bytes(mutated(original, rng))
        try:
            check_blocks(await parser.parse(path, filename))
        except ParseFailed as exc:
            assert exc.code != "server_error", exc.message


async def test_too_many_pages_are_not_read(parser: Parser, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(pdf([(12, 700, "words")]).replace(b"/Count 1 ", b"/Count 100000 "))

    with pytest.raises(ParseFailed, match="100000 pages"):
        await parser.parse(path, "long.pdf")


async def assert_reads_on(parser: Parser, tmp_path: Path) -> None:
    path = tmp_path / "good"
    path.write_bytes(WORD)

    assert (await parser.parse(path, "good.docx")).text == "words"
