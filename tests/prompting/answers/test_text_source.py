"""Reading by pieces: what comes out is never changed by where the text is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.prompting.answers.text_source import SPACE, Reading, TextSource

T = TypeVar("T")
MARKERS = ("<tool>", "<end>", "[X]")


def run(read: Callable[[TextSource], Reading[T]], pieces: Sequence[str]) -> tuple[T, str]:
    """What a reading returns, and what it leaves unread."""
    source = TextSource()
    reading = read(source)
    rest = [*pieces]
    while True:
        if rest:
            source.feed(rest.pop(0))
        else:
            source.close()
        try:
            next(reading)
        except StopIteration as done:
            for piece in rest:
                source.feed(piece)
            source.close()
            return done.value, drain(source)


def drain(source: TextSource) -> str:
    rest: list[str] = []
    for _ in source.copy_until((), rest.append):
        pass
    return "".join(rest)


def copy_until(source: TextSource) -> Reading[tuple[str, str | None]]:
    copied: list[str] = []
    marker = yield from source.copy_until(MARKERS, copied.append)
    return "".join(copied), marker


def test_text_is_copied_up_to_the_first_marker() -> None:
    assert run(copy_until, ["a [X<en", "d>b[X]"]) == (("a [X", "<end>"), "b[X]")


def test_what_may_begin_a_marker_is_held_back_and_no_more() -> None:
    source, copied = TextSource(), list[str]()
    reading = source.copy_until(MARKERS, copied.append)
    source.feed("abc<to")
    next(reading)

    assert copied == ["abc"]


@pytest.mark.parametrize(("text", "found"), [("<tool>x", True), ("<tole>x", False), ("<to", False), ("", False)])
def test_a_literal_is_read_or_left(text: str, *, found: bool) -> None:
    assert run(lambda source: source.take_literal("<tool>"), list(text)) == (found, "x" if found else text)


def test_a_literal_waits_no_longer_than_the_text_agrees() -> None:
    source = TextSource()
    source.feed("<x")

    with pytest.raises(StopIteration):
        next(source.take_literal("<tool>"))


def test_what_was_read_is_remembered_on_demand() -> None:
    source = TextSource()
    source.feed("ab cd")
    source.record("x")
    source.take(2)
    for _ in source.copy_run(SPACE, lambda _: None):
        pass

    assert source.recorded() == "xab "
    source.take(1)
    assert source.recorded() == ""


SNIPPETS = st.lists(
    st.sampled_from([*MARKERS, "<", "<to", "ol>", "[", "X]", " ", "ab", "<tool", "d>"]) | st.text(max_size=2),
    max_size=12,
)


@settings(deadline=None)
@given(SNIPPETS)
def test_markers_are_found_wherever_the_text_is_cut(pieces: list[str]) -> None:
    """The naive twin looks at the whole text."""
    text = "".join(pieces)
    at, marker = min(((text.find(m), m) for m in MARKERS if m in text), default=(len(text), None))

    (copied, found), rest = run(copy_until, pieces)

    assert (copied, found) == (text[:at], marker)
    assert copied + (found or "") + rest == text
