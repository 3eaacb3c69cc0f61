"""Reasoning between tags, in front of an answer."""

from __future__ import annotations

import pytest

from server.prompting.answers.thoughts import THINK
from tests.fakes.spoken import Spoken, hear, read, reader_of


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<think>\nHm.\n</think>\n\nHello.", Spoken("Hello.", "Hm.")),
        ("\n<think>Hm.</think>Hello.\n", Spoken("Hello.\n", "Hm.")),
        ("<think>\n\n</think>\n\nHello.", Spoken("Hello.")),
        ("<think>Hm", Spoken("", "Hm")),
        ("Hello <think>.", Spoken("Hello <think>.")),
        (" Hello", Spoken(" Hello")),
        ("<thin", Spoken("<thin")),
        ("", Spoken()),
    ],
)
def test_an_answer_may_begin_with_reasoning(text: str, spoken: Spoken) -> None:
    assert read(text, None, thoughts=THINK) == spoken


@pytest.mark.parametrize("text", ["Hm.</think>Hello.", "<think>Hm.</think>Hello."])
def test_the_prompt_may_have_begun_it(text: str) -> None:
    assert read(text, None, thoughts=THINK, is_thinking=True) == Spoken("Hello.", "Hm.")


def test_reasoning_is_delivered_as_it_comes() -> None:
    reader = reader_of(None, thoughts=THINK)

    first, second = reader.push("<think>One two"), reader.push(" three</th")

    assert first is not None and first.reasoning == "One two"
    assert second is not None and second.reasoning == " three"
    assert reader.is_reasoning
    assert hear(reader, ["ink>Yes"]) == Spoken("Yes")
