from __future__ import annotations

import pytest

from server.rag.parsing import ParseFailed
from tests.fakes.office_files import docx_file, pptx_file, with_members, xlsx_file, zip_file
from tests.fakes.parsed_documents import Read
from tests.fakes.pdf_file import pdf

WORD = docx_file(lambda document: document.add_paragraph("words"))
SHEET = xlsx_file({"Sheet": [["words"]]})
SLIDES = pptx_file(lambda deck: setattr(deck.slides.add_slide(deck.slide_layouts[5]).shapes.title, "text", "words"))
PAGE = pdf([(12, 700, "words")])
MAIL = b"Received: from x\r\nFrom: a@example.org\r\nSubject: words\r\n\r\nbody"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (WORD, "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (SHEET, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (SLIDES, "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        (PAGE, "application/pdf"),
        (b"\n" + PAGE, "application/pdf"),
        (MAIL, "message/rfc822"),
        (b"<!-- saved from -->\n<!DOCTYPE html><p>words", "text/html"),
        (b'<?xml version="1.0"?><html><body>words</body></html>', "text/html"),
        (b"words", "text/plain"),
    ],
)
@pytest.mark.parametrize("filename", ["words", "words.txt", "words.pdf", "words.docx", "words.csv", "words.exe"])
def test_content_tells_more_than_the_name(read: Read, content: bytes, media_type: str, filename: str) -> None:
    document = read(filename, content)

    assert "words" in document.text
    if media_type != "text/plain" or not filename.endswith(".csv"):
        assert document.media_type == media_type


@pytest.mark.parametrize(
    ("filename", "media_type"),
    [
        ("words.md", "text/markdown"),
        ("WORDS.MD", "text/markdown"),
        ("words.csv", "text/csv"),
        ("words.html", "text/html"),
        ("words.py", "text/plain"),
        ("words.unknown", "text/plain"),
        ("../../words.md", "text/markdown"),
        ("a\0b\u202e" * 100 + ".md", "text/markdown"),
    ],
)
def test_the_name_tells_what_content_cannot(read: Read, filename: str, media_type: str) -> None:
    assert read(filename, "words").media_type == media_type


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{\\rtf1 words}", "an RTF document"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image, though its name ends in .pdf"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive"),
        (zip_file({"words.txt": b"words"}), "a zip archive"),
        (OLE, "an old Office or Outlook file"),
        (bytes(range(256)) * 10, "binary data of an unknown kind"),
    ],
)
def test_what_is_not_read_is_named(read: Read, content: bytes, words: str) -> None:
    with pytest.raises(ParseFailed) as caught:
        read("words.pdf", content)

    assert caught.value.code == "unsupported_file" and words in caught.value.message


def test_an_encrypted_office_file_is_told_from_an_old_one(read: Read) -> None:
    with pytest.raises(ParseFailed, match="encrypted") as caught:
        read("words.docx", OLE + "EncryptedPackage".encode("utf-16-le"))

    assert caught.value.code == "invalid_file"


def test_two_documents_in_one_file_are_refused(read: Read) -> None:
    types = b'<Types><Override ContentType="application/vnd.ms-excel.sheet.macroEnabled.main+xml"/>%s</Types>'
    word = b'<Override ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>'

    with pytest.raises(ParseFailed, match="docx and xlsx in one"):
        read("words.docx", with_members(WORD, {"[Content_Types].xml": types % word}))


def test_a_pdf_with_an_archive_behind_it_is_a_pdf(read: Read) -> None:
    assert read("words.docx", PAGE + WORD).media_type == "application/pdf"


def test_an_empty_file_says_so(read: Read) -> None:
    with pytest.raises(ParseFailed, match="is empty"):
        read("words.txt", b"")


def test_a_file_with_headers_that_was_never_sent_is_text(read: Read) -> None:
    assert read("words.txt", "From: a\nSubject: b\n\nwords").media_type == "text/plain"
