"""Windows of sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.services.sentence_windows import MAX_CHARS, split_windows


def cut(text: str, max_windows: int = 32) -> list[str]:
    return [text[start:end] for start, end in split_windows(text, max_windows)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ", []),
        ("one without an end", ["one without an end"]),
        (
            "The first one. The second one!  Is this the third?",
            ["The first one.", "The second one!", "Is this the third?"],
        ),
        ('He said: "It is so." And then he left.', ['He said: "It is so."', "And then he left."]),
        ("Version 3.11 of it costs 2.50 euros.", ["Version 3.11 of it costs 2.50 euros."]),
        ("Dr. Smith came home. He was late.", ["Dr. Smith came home.", "He was late."]),
        (
            "今日はとても良い天気です。明日は雨が降るでしょう。",
            ["今日はとても良い天気です。", "明日は雨が降るでしょう。"],
        ),
        ("यह पहला वाक्य है। यह दूसरा वाक्य है।", ["यह पहला वाक्य है।", "यह दूसरा वाक्य है।"]),
        ("A heading\n\nA paragraph that\nis wrapped.", ["A heading", "A paragraph that\nis wrapped."]),
        ("Things:\n- the first thing\n- the second thing", ["Things:\n- the first thing", "- the second thing"]),
    ],
)
def test_windows_are_sentences_in_many_scripts(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


def test_a_long_text_has_longer_windows_not_more() -> None:
    text = " ".join(f"This is sentence number {index}." for index in range(100))

    windows = cut(text, 8)

    assert len(windows) == 8
    assert " ".join(windows) == text


def test_a_sentence_without_end_is_cut_at_spaces() -> None:
    windows = cut("word " * 1000)

    assert all(len(window) <= MAX_CHARS and window.startswith("word") for window in windows)
    assert sum(window.count("word") for window in windows) == 1000


@pytest.mark.parametrize("text", ["." * 200_000 + "x", "\n " * 100_000 + "x", "." + '"' * 200_000 + "x", " " * 200_000])
def test_hostile_text_takes_linear_time(text: str) -> None:
    assert len(cut(text)) <= 32


@given(st.text(alphabet=st.sampled_from("ab .!?。\n-'\")") | st.characters(), max_size=400), st.integers(1, 10))
def test_windows_hold_everything_but_space_in_order(text: str, max_windows: int) -> None:
    windows = split_windows(text, max_windows)

    assert len(windows) <= max_windows
    offsets = [offset for window in windows for offset in window]
    assert offsets == sorted(offsets)
    assert all(start < end for start, end in windows)
    inside = {offset for start, end in windows for offset in range(start, end)}
    assert all(text[offset].isspace() for offset in range(len(text)) if offset not in inside)
