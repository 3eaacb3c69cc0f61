from __future__ import annotations

import codecs
import random

import pytest

from server.rag.loaders.decoding import clean, decode

RUSSIAN = "Вот дом, который построил Джек. А это пшеница, которая в тёмном чулане хранится. " * 20
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 20
SPANISH = "El niño comió jamón en España, ¿verdad? " * 5
FRENCH = "Où sont les élèves ? À la fenêtre, ils regardent tomber la neige d'été. " * 20


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_is_told_with_and_without_a_mark(charset: str) -> None:
    assert decode(FRENCH.encode(charset)) == FRENCH


def test_a_mark_of_the_other_byte_order_is_followed() -> None:
    assert decode(codecs.BOM_UTF16_BE + FRENCH.encode("utf-16-be")) == FRENCH


@pytest.mark.parametrize(
    ("text", "charset"),
    [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift_jis"), (FRENCH, "cp1252"), (SPANISH, "latin-1")],
)
def test_charsets_of_old_are_guessed(text: str, charset: str) -> None:
    assert decode(text.encode(charset)) == text


def test_a_broken_character_does_not_change_the_charset() -> None:
    broken = RUSSIAN[:50].encode() + b"\xff" + RUSSIAN[50:].encode()

    assert decode(broken) == RUSSIAN[:50] + "\ufffd" + RUSSIAN[50:]


@pytest.mark.parametrize("content", [random.Random(0).randbytes(5000), bytes(100), b"\x7fELF\x01\x02\x03\x04" * 50])
def test_binary_data_is_no_text(content: bytes) -> None:
    assert decode(content) is None


def test_every_line_ends_alike() -> None:
    assert clean("a\r\nb\rc\fd\u2028e\n") == "a\nb\nc\nd\ne\n"


def test_what_nobody_sees_is_taken_out() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all")

    assert clean(f"exam\xadple{hidden} \ufeff\x00\ud800text") == "example text"


def test_marks_that_scripts_need_are_kept() -> None:
    text = "نمی\u200cخواهم 👩\u200d🚀 e\u0301"

    assert clean(text) == text
