"""Answers as gpt-oss writes them."""

from __future__ import annotations

import pytest

from server.prompting.answers.harmony import HARMONY
from tests.fakes.spoken import Spoken, read, reader_of

ANALYSIS = "<|channel|>analysis<|message|>I am\nthinking<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
ARGUMENTS = '{"city": "Oslo"}'
CALL = ("get_weather", ARGUMENTS)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        (f"{FINAL}Hello.\nHow?", Spoken("Hello.\nHow?")),
        ("<|channel|>commentary<|message|>Hello.", Spoken("Hello.")),
        (f"{ANALYSIS}{FINAL}Hello.", Spoken("Hello.", "I am\nthinking")),
        ("<|channel|>analysis<|message|>I am", Spoken("", "I am")),
        (f"{ANALYSIS}{ANALYSIS}{FINAL}Hello.", Spoken("Hello.", "I am\nthinking\nI am\nthinking")),
        (f" to=functions.get_weather<|channel|>commentary json<|message|>{ARGUMENTS}", Spoken("", "", [CALL])),
        (f"<|channel|>commentary to=functions.get_weather<|message|>{ARGUMENTS}", Spoken("", "", [CALL])),
        (
            f"{ANALYSIS}<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
            Spoken("", "I am\nthinking", [CALL]),
        ),
        (
            f"{ANALYSIS} to=functions.get_weather<|channel|>analysis<|message|>{ARGUMENTS}",
            Spoken("", "I am\nthinking", [CALL]),
        ),
        (
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
            f"<|channel|>commentary to=functions.get_weather<|message|>{ARGUMENTS}",
            Spoken("I look.", "", [CALL]),
        ),
        (f"<|channel|>commentary to=assistant{ANALYSIS}{FINAL}Hello.", Spoken("Hello.", "I am\nthinking")),
        ('<|channel|>final <|constrain|>json<|message|>{"a": 1}', Spoken('{"a": 1}')),
        ("Hello, no channel.", Spoken("Hello, no channel.")),
        (f"Hm.<|start|>assistant{FINAL}Hello.", Spoken("Hm.Hello.")),
    ],
)
def test_channels_are_told_apart(text: str, spoken: Spoken) -> None:
    assert read(text, HARMONY) == spoken


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>commentary to=functions.sing<|message|>{}",
        '<|channel|>commentary to=functions.get_weather<|message|>{"city',
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(text: str) -> None:
    assert read(text, HARMONY) == Spoken(text)


def test_reasoning_is_known_while_it_lasts() -> None:
    reader = reader_of(HARMONY)
    reader.push("<|channel|>analysis<|message|>Hm")

    assert reader.is_reasoning
    reader.push("<|end|><|start|>assistant<|channel|>final<|message|>")
    assert not reader.is_reasoning
