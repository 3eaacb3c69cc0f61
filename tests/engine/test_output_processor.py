"""Tokens to events: every stream ends once, whoever ends it."""

from __future__ import annotations

import pytest

from server.engine.detokenizer import Detokenizer
from server.engine.engine import TokenOutput
from server.engine.logprobs import Ranking
from server.engine.output_processor import AnswerReader, Output, OutputProcessor
from server.engine.sequence import Sequence
from server.types import (
    Delta,
    Failed,
    Finished,
    FinishReason,
    SamplingParams,
    Timings,
    TokenChance,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

PIECES = [b"", b"one ", b"two ", b"three ", "é".encode()[:1], "é".encode()[1:]]
END = 0
ENGINES_USAGE = Usage(prompt_tokens=2, completion_tokens=9)


class Stage:
    """A processor with one open request, and whom it told the engine to drop."""

    def __init__(
        self,
        *stop: str,
        pieces: list[bytes] = PIECES,
        reader: AnswerReader | None = None,
        num_logprobs: int | None = None,
    ) -> None:
        self.aborted: list[str] = []
        self.processor = OutputProcessor(self.aborted.append, is_end=lambda token_id: token_id == END, names=pieces)
        self.sequence = Sequence("a", [1, 2], SamplingParams(num_logprobs=num_logprobs), max_tokens=9)
        self.processor.open(self.sequence, Detokenizer(pieces, stop), reader)

        self.num_said = 0

    def say_ranked(self, *token_ids: int, ending: Finished | Failed | None = None) -> list[Output]:
        """The same with rankings: token n has the log probability -n, and token 3 is likelier."""
        for token_id in token_ids:
            ranking = Ranking(-float(token_id), ((3, -0.5),))
            self.sequence.sampler_state.rankings[self.num_said] = ranking
            self.num_said += 1
        return self.say(*token_ids, ending=ending)

    def say(self, *token_ids: int, ending: Finished | Failed | None = None) -> list[Output]:
        outputs: list[TokenOutput] = [("a", list(token_ids), ending)]
        return self.processor.process(outputs)


def test_tokens_of_one_step_are_one_text() -> None:
    assert Stage().say(1, 2) == [("a", Delta("one two ", num_tokens=2))]


def test_the_end_token_is_no_text() -> None:
    ending = Finished("stop", ENGINES_USAGE)

    assert Stage().say(1, END, ending=ending) == [("a", Delta("one ", num_tokens=2)), ("a", ending)]


def test_a_character_in_two_tokens_comes_with_the_second() -> None:
    stage = Stage()

    assert stage.say(4) == []
    assert stage.say(5) == [("a", Delta("é", num_tokens=2))]


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
        ("a", Delta("one ", num_tokens=2)),
        ("a", Finished("stop", Usage(prompt_tokens=2, completion_tokens=3), stop_text="two three")),
    ]
    assert stage.aborted == ["a"]


def test_a_stop_string_in_the_last_tokens_wins_over_the_engines_ending() -> None:
    stage = Stage("two")

    *_, (_, ending) = stage.say(1, 2, 3, ending=Finished("length", ENGINES_USAGE))

    assert ending == Finished("stop", Usage(prompt_tokens=2, completion_tokens=2), stop_text="two")
    assert stage.aborted == []


def test_what_begins_like_a_stop_string_is_said_at_the_end_after_all() -> None:
    stage = Stage("two three")
    stage.say(1, 2)
    ending = Finished("length", ENGINES_USAGE)

    assert stage.say(ending=ending) == [("a", Delta("two ", num_tokens=0)), ("a", ending)]


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


def ranked(*token_ids: int) -> tuple[TokenLogprob, ...]:
    """What `Stage.say_ranked` says of these tokens."""
    likelier = TokenChance(PIECES[3], -0.5)
    return tuple(TokenLogprob(TokenChance(PIECES[each], -float(each)), (likelier,)) for each in token_ids)


def test_log_probabilities_come_with_the_text_of_their_tokens() -> None:
    stage = Stage("two three", num_logprobs=1)

    assert stage.say_ranked(1, 2) == [("a", Delta("one ", logprobs=ranked(1)))]
    assert stage.say_ranked(1) == [("a", Delta("two one ", logprobs=ranked(2, 1), num_tokens=2))]
    assert stage.sequence.sampler_state.rankings == {}


def test_a_character_of_two_tokens_has_two_log_probabilities() -> None:
    stage = Stage(num_logprobs=1)

    assert stage.say_ranked(4) == []
    assert stage.say_ranked(5) == [("a", Delta("é", logprobs=ranked(4, 5), num_tokens=2))]


def test_neither_the_end_token_nor_a_stop_string_has_log_probabilities() -> None:
    ending = Finished("stop", ENGINES_USAGE)

    assert Stage(num_logprobs=1).say_ranked(1, END, ending=ending)[0] == ("a", Delta("one ", logprobs=ranked(1)))
    said, (_, stopped) = Stage("two", num_logprobs=1).say_ranked(1, 2, 3, ending=ending)
    assert said == ("a", Delta("one ", logprobs=ranked(1)))
    assert isinstance(stopped, Finished) and stopped.usage.completion_tokens == 2


def test_reasoning_and_calls_have_no_log_probabilities() -> None:
    stage = Stage(reader=Shouter(), num_logprobs=1)

    events = stage.say_ranked(1, 2, 3, END, ending=Finished("stop", ENGINES_USAGE))

    assert [delta.logprobs for _, delta in events if isinstance(delta, Delta)] == [(), (), ranked(3)]


class Shouter:
    """Takes "one " for reasoning and "two " for a call, and holds back everything else until the end."""

    def __init__(self, *, max_calls: int = 9) -> None:
        self.held = ""
        self.num_calls = 0
        self.num_settled = 0
        self.max_calls = max_calls
        self.num_read = 0
        self.spans: list[tuple[int, int]] = []
        self.is_reasoning = True

    @property
    def is_full(self) -> bool:
        return self.num_calls == self.max_calls

    def push(self, text: str) -> Delta | None:
        self.num_read += len(text)
        self.is_reasoning = text == "one "
        if text == "two ":
            self.num_calls += 1
            return Delta(tool_calls=(ToolCallDelta(0, "id", "f", "{}"),))
        self.held += text if text != "one " else ""
        self.spans += [(self.num_read - len(text), self.num_read)] if text != "one " else []
        return Delta(reasoning=text) if text == "one " else None

    def finish(self) -> Delta | None:
        return Delta(self.held) if self.held else None

    def take_spans(self) -> list[tuple[int, int]]:
        spans, self.spans = self.spans, []
        return spans


def test_a_reader_makes_the_deltas_and_gives_up_what_it_held_at_the_end() -> None:
    stage = Stage(reader=Shouter())

    events = stage.say(1) + stage.say(3) + stage.say(END, ending=Finished("stop", ENGINES_USAGE))

    assert [event for _, event in events[:2]] == [Delta(reasoning="one "), Delta("three ", num_tokens=2)]
    ending = events[-1][1]
    assert isinstance(ending, Finished)
    assert (ending.reason, ending.usage.reasoning_tokens) == ("stop", 2)  # the second was read while it lasted


def test_what_comes_behind_a_stop_string_is_no_reasoning_either() -> None:
    """Of a draft, or of several quick steps."""
    *_, (_, ending) = Stage("two", reader=Shouter()).say(2, 3, 1)

    assert isinstance(ending, Finished)
    assert (ending.usage.completion_tokens, ending.usage.reasoning_tokens) == (1, 1)


def test_an_ending_keeps_its_timings_whoever_reads_the_answer() -> None:
    timings = Timings(queue_ms=1, tokenize_ms=2, prefill_ms=3, decode_ms=4)

    for reader in (None, Shouter()):
        *_, (_, ending) = Stage(reader=reader).say(1, ending=Finished("length", ENGINES_USAGE, timings=timings))
        assert isinstance(ending, Finished) and ending.timings == timings


@pytest.mark.parametrize(("reason", "told"), [("stop", "tool_calls"), ("length", "length")])
def test_an_answer_with_calls_ends_with_them_unless_it_was_cut(reason: FinishReason, told: str) -> None:
    events = Stage(reader=Shouter()).say(2, ending=Finished(reason, ENGINES_USAGE))

    assert isinstance(events[-1][1], Finished)
    assert events[-1][1].reason == told


def test_a_full_answer_ends_there_and_tells_the_engine() -> None:
    stage = Stage(reader=Shouter(max_calls=1))

    events = stage.say(2)

    assert isinstance(events[-1][1], Finished)
    assert (events[-1][1].reason, stage.aborted, stage.say(1)) == ("tool_calls", ["a"], [])


def test_a_reader_that_breaks_fails_its_request_only() -> None:
    reader = Shouter()
    reader.push = lambda _: 1 / 0  # type: ignore[assignment,return-value]
    stage = Stage(reader=reader)

    [(_, failed)] = stage.say(1)

    assert isinstance(failed, Failed)
    assert stage.aborted == ["a"]
