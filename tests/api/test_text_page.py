from __future__ import annotations

import json

import pytest

from server.api import text_page
from server.api.text_page import TextPage


async def pieces(text: str) -> list[bytes]:
    return [piece async for piece in TextPage(text).body_iterator if isinstance(piece, bytes)]


@pytest.mark.parametrize("piece_chars", [1, 2, 3, 100])
@pytest.mark.parametrize("text", ["", "plain", 'a "quoted"\\\n\t\x7f line', "naïve 😀 \u2028 text"])
async def test_the_page_has_the_text_however_it_is_cut(
    text: str, piece_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_page, "PIECE_CHARS", piece_chars)

    page = json.loads(b"".join(await pieces(text)))

    assert page["data"] == [{"type": "text", "text": text}]


async def test_no_piece_of_a_long_text_takes_long_to_write() -> None:
    assert max(map(len, await pieces("words and\n" * 1_000_000))) < 1 << 20
