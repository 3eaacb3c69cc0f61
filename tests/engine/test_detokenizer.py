from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer

BYTES = [bytes([value]) for value in range(256)]


def say(text: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """Push a text byte by byte; return what came out at each push, and whether it was stopped."""
    detokenizer = Detokenizer(BYTES, stop)
    said = []
    for byte in text:
        said.append(detokenizer.push(byte))
        if detokenizer.stopped:
            return said, True
    said.append(detokenizer.flush())
    return said, detokenizer.stopped


@given(st.text())
def test_text_survives_being_cut_into_bytes(text: str) -> None:
    said, _ = say(text.encode())

    assert "".join(said) == text


def test_a_code_point_is_never_split() -> None:
    said, _ = say("a😀b".encode())

    assert said == ["a", "", "", "", "😀", "b", ""]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    said, _ = say(b"a\xffb\xf0\x9f")

    assert "".join(said) == "a\ufffdb\ufffd"


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_cut_like_a_search_in_the_whole_text(text: str, stop: list[str]) -> None:
    """The naive twin: the earliest moment at which any stop string is complete ends the text before its first start."""
    said, stopped = say(text.encode(), tuple(stop))

    ends = [text.find(word) + len(word) for word in stop if word in text]
    if not ends:
        assert "".join(said) == text
        assert not stopped
        return
    seen = text[: min(ends)]
    assert "".join(said) == seen[: min(seen.find(word) for word in stop if word in seen)]
    assert stopped


def test_the_stop_string_that_comes_first_is_told() -> None:
    detokenizer = Detokenizer([b"one two three"], ("three", "two", "four"))

    assert detokenizer.push(0) == "one "
    assert detokenizer.stop_text == "two"


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    said, _ = say(b"say END now", ("END OF",))

    assert "E" not in said[:5]
    assert "".join(said) == "say END now"
