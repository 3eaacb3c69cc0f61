"""Names of uploaded files, hostile ones too."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.rag.file_name import clean_file_name


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("notes.txt", "notes.txt"),
        ("guide/part 1.md", "guide/part 1.md"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\docs\\a.txt", "docs/a.txt"),
        ("a\x00b\r\n\x1b[31m.txt", "ab[31m.txt"),
        ("invoice\u202etxt.exe", "invoicetxt.exe"),
        ("CON", "CON"),
        ("🙂.md", "🙂.md"),
        ("<img src=x onerror=alert(1)>.html", "<img src=x onerror=alert(1)>.html"),
        ("x" * 300, "x" * 300),
    ],
)
def test_a_name_is_kept_as_far_as_it_is_harmless(raw: str, kept: str) -> None:
    assert clean_file_name(raw.encode()) == kept


@pytest.mark.parametrize("raw", [b"", b"..", b"/", b"\x00", b"../", b"x" * 513], ids=repr)
def test_a_name_of_which_nothing_or_too_much_is_left_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        clean_file_name(raw)

    assert refused.value.param == "file"


@given(st.binary(min_size=1, max_size=60))
def test_what_is_kept_leads_nowhere_and_stays_the_same_when_cleaned_again(raw: bytes) -> None:
    try:
        name = clean_file_name(raw)
    except InvalidRequest:
        return

    assert not {"", ".", ".."} & set(name.split("/"))
    assert "Cc" not in {unicodedata.category(c) for c in name}
    assert clean_file_name(name.encode()) == name
