from __future__ import annotations

import io
import warnings
import zipfile

import pytest

from server.rag.parsing import ParseFailed
from tests.fakes.office_files import docx_file, with_members, zip_file
from tests.fakes.parsed_documents import Read

WORD = docx_file(lambda document: document.add_paragraph("words"))


def refusal(read: Read, content: bytes, **limits: int) -> str:
    with pytest.raises(ParseFailed) as caught:
        read("words.docx", content, **limits)
    return caught.value.message


def test_members_are_counted_before_they_are_listed(read: Read) -> None:
    archive = zip_file({f"member-{number}": b"" for number in range(101)})

    assert "more than 100 members" in refusal(read, archive, max_members=100)


def test_a_directory_that_lies_about_its_length_is_found_out(read: Read) -> None:
    archive = bytearray(zip_file({f"member-{number}": b"" for number in range(101)}))
    end = archive.rfind(b"PK\x05\x06")
    archive[end + 8 : end + 12] = b"\x01\0\x01\0"  # claims to have one member

    assert "more than 100 members" in refusal(read, bytes(archive), max_members=100)


def test_what_would_not_fit_is_not_unpacked(read: Read) -> None:
    assert "more than 1 MB" in refusal(read, with_members(WORD, {"x": bytes(2 << 20)}), max_unpacked_bytes=1 << 20)


def test_members_unpack_to_no_more_than_they_say(read: Read) -> None:
    archive = bytearray(with_members(WORD, {"[Content_Types].xml": b"a" * 100_000}))
    entry = archive.rfind(b"PK\x01\x02", 0, archive.rfind(b"[Content_Types].xml"))
    archive[entry + 24 : entry + 28] = (10).to_bytes(4, "little")

    assert "damaged" in refusal(read, bytes(archive))


def test_two_members_of_one_name_are_refused(read: Read) -> None:
    target = io.BytesIO(WORD)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(target, "a") as archive:
        archive.writestr("word/document.xml", "<other/>")

    assert "members of the same name" in refusal(read, target.getvalue())


def test_an_encrypted_member_is_refused(read: Read) -> None:
    archive = bytearray(WORD)
    entry = archive.rfind(b"PK\x01\x02")
    archive[entry + 8] |= 1

    assert "encrypted" in refusal(read, bytes(archive))


def test_only_the_compression_of_office_is_unpacked(read: Read) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("word/document.xml", "words")

    assert "compression" in refusal(read, target.getvalue())
