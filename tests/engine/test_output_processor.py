"""Tokens to events: every stream ends once, whoever ends it."""

from __future__ import annotations

import pytest

from server.engine.detokenizer import Detokenizer
from server.engine.engine import TokenOutput
from server.engine.output_processor import Output, OutputProcessor
from server.engine.sequence import Sequence
from server.types import Delta, Failed, Finished, SamplingParams, Usage

PIECES = [b"", b"one ", b"two ", b"three ", "é".encode()[:1], "é".encode()[1:]]
END = 0
ENGINES_USAGE = Usage(prompt_tokens=2, completion_tokens=9)


class Stage:
    """A processor with one open request, and whom it told the engine to drop."""

    def __init__(self, *stop: str, pieces: list[bytes] = PIECES) -> None:
        self.aborted: list[str] = []
        self.processor = OutputProcessor(self.aborted.append, is_end=lambda token_id: token_id == END)
        sequence = Sequence("a", [1, 2], SamplingParams(), max_tokens=9)
        self.processor.open(sequence, Detokenizer(pieces, stop))

    def say(self, *token_ids: int, ending: Finished | Failed | None = None) -> list[Output]:
        outputs: list[TokenOutput] = [("a", list(token_ids), ending)]
        return self.processor.process(outputs)


def test_tokens_of_one_step_are_one_text() -> None:
    assert Stage().say(1, 2) == [("a", Delta("one two "))]


def test_the_end_token_is_no_text() -> None:
    ending = Finished("stop", ENGINES_USAGE)

    assert Stage().say(1, END, ending=ending) == [("a", Delta("one ")), ("a", ending)]


def test_a_character_in_two_tokens_comes_with_the_second() -> None:
    stage = Stage()

    assert stage.say(4) == []
    assert stage.say(5) == [("a", Delta("é"))]


def test_only_the_beginning_and_the_ending_of_an_answer_are_awaited() -> None:
    stage = Stage()
    assert stage.processor.is_awaited([("a", [1], None)])

    stage.say(1)

    assert not stage.processor.is_awaited([("a", [2], None), ("aborted", [2], None)])
    assert stage.processor.is_awaited([("a", [2], Finished("stop", ENGINES_USAGE))])


def test_a_stop_string_ends_the_stream_and_tells_the_engine() -> None:
    stage = Stage("two three")

    events = stage.say(1, 2) + stage.say(3, 1)

    assert events == [
        ("a", Delta("one ")),
        ("a", Finished("stop", Usage(prompt_tokens=2, completion_tokens=3))),
    ]
    assert stage.aborted == ["a"]


def test_a_stop_string_in_the_last_tokens_wins_over_the_engines_ending() -> None:
    stage = Stage("two")

    *_, (_, ending) = stage.say(1, 2, 3, ending=Finished("length", ENGINES_USAGE))

    assert ending == Finished("stop", Usage(prompt_tokens=2, completion_tokens=2))
    assert stage.aborted == []


def test_what_begins_like_a_stop_string_is_said_at_the_end_after_all() -> None:
    stage = Stage("two three")
    stage.say(1, 2)
    ending = Finished("length", ENGINES_USAGE)

    assert stage.say(ending=ending) == [("a", Delta("two ")), ("a", ending)]


@pytest.mark.parametrize("ends_by", ["stop string", "abort", "engine"])
def test_nothing_is_said_after_the_end(ends_by: str) -> None:
    stage = Stage("three")
    if ends_by == "stop string":
        stage.say(3)
    elif ends_by == "abort":
        stage.processor.close("a")
    else:
        stage.say(ending=Failed("internal_error", "as the test asked"))

    assert stage.say(1, ending=Finished("length", ENGINES_USAGE)) == []


def test_a_text_that_cannot_be_made_fails_its_request_only() -> None:
    stage = Stage(pieces=[b"", b"one "])

    [(_, ending)] = stage.say(7)

    assert isinstance(ending, Failed)
    assert stage.aborted == ["a"]
