"""Tokens and the text that is delivered of them, however it is cut and held back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer
from server.engine.logprobs import Ranking
from server.engine.output_processor import OutputProcessor
from server.engine.sequence import Sequence
from server.engine.token_trail import TokenTrail
from server.prompting.answers.hermes import HERMES
from server.prompting.answers.thoughts import ThoughtTags
from server.types import Delta, Finished, SamplingParams, TokenChance, TokenLogprob, Usage
from tests.fakes.spoken import reader_of

PIECES = [b"a", b"b", b"ab", b" ", b"\n ", "é".encode()[:1], "é".encode()[1:], b"\xff", "né".encode()]


def token(piece: bytes) -> TokenLogprob:
    return TokenLogprob(TokenChance(piece, -1.0))


def pieces_of(tokens: tuple[TokenLogprob, ...]) -> list[bytes]:
    return [each.chosen.piece for each in tokens]


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=30), st.lists(st.sampled_from(["ab", "a b", "é"]), max_size=2)
)
def test_together_the_tokens_of_all_deltas_are_those_of_the_text(token_ids: list[int], stops: list[str]) -> None:
    """Each once, in order; up to the last that has a character in the text, where a stop string cuts it."""
    trail, detokenizer = TokenTrail(), Detokenizer(PIECES, tuple(stops))
    text, delivered = "", []

    def deliver(released: str) -> None:
        nonlocal text
        text += released
        trail.num_released = len(text)
        delivered.extend(pieces_of(trail.take([(len(text) - len(released), len(text))])))

    for token_id in token_ids:
        trail.add(token(PIECES[token_id]), num_held=detokenizer.num_held)
        deliver(detokenizer.push(token_id))
        if detokenizer.stopped:
            break
    else:
        deliver(detokenizer.flush())

    assert delivered == [PIECES[token_id] for token_id in token_ids[: len(delivered)]]
    assert b"".join(delivered).decode("utf-8", "replace").startswith(text)
    shorter = b"".join(delivered[:-1]).decode("utf-8", "replace").rstrip("�")
    assert len(shorter) < len(text) or not text


def trail_of(*pieces: bytes) -> TokenTrail:
    """All of whose text has been released."""
    trail = TokenTrail()
    for piece in pieces:
        trail.add(token(piece), num_held=0)
        trail.num_released += len(piece)
    return trail


def test_only_tokens_with_a_character_in_a_span_are_given() -> None:
    trail = trail_of(b"one", b" ", b"two", b" three")

    assert pieces_of(trail.take([(0, 2), (5, 6)])) == [b"one", b"two"]
    assert pieces_of(trail.take([(8, 9)])) == [b" three"]


def test_a_token_that_is_only_begun_comes_with_its_beginning() -> None:
    trail = trail_of(b"one two")

    assert pieces_of(trail.take([(0, 3)])) == [b"one two"]
    assert pieces_of(trail.take([(3, 7)])) == []


def test_what_is_dropped_is_not_kept() -> None:
    trail = trail_of(*[b"hm"] * 1000)

    trail.drop(1000)

    assert len(trail._tokens) == 500
    assert len(trail.take([(0, 2000)])) == 500


# ---- with a reader, which takes reasoning and calls out of the text

CALL = '<tool_call>\n{"name": "get_time", "arguments": {"at": "<t a"}}\n</tool_call>'
contents = st.text("ab <t\n", min_size=1, max_size=8)


@given(
    thoughts=contents,
    answers=st.lists(contents, min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=40),
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=10),
)
@settings(deadline=None)
def test_of_an_answer_with_thoughts_and_calls_the_tokens_of_its_content_are_told(
    thoughts: str, answers: list[str], cuts: list[int], steps: list[int]
) -> None:
    """Each part is cut into tokens of its own, so that it is clear which are content; white space may be either."""
    parts = [(f"<think>{thoughts}</think>", False)]
    for answer in answers:
        parts += [(answer, True), (CALL, False)]
    sizes = itertools.cycle(cuts)
    tokens = [(piece, is_content) for part, is_content in parts[:-1] for piece in cut(part, sizes)]
    expected = [piece for piece, is_content in tokens if is_content and piece.strip()]

    assert said_by([piece for piece, _ in tokens], steps) == expected


def cut(text: str, sizes: Iterator[int]) -> Iterator[str]:
    while text:
        size = next(sizes)
        yield text[:size]
        text = text[size:]


def said_by(pieces: list[str], steps: list[int]) -> list[str]:
    """The tokens that log probabilities are told of, without white space."""
    encoded = [piece.encode() for piece in pieces]
    processor = OutputProcessor(lambda _: None, is_end=lambda _: False, names=encoded)
    sequence = Sequence("a", [1], SamplingParams(num_logprobs=0), max_tokens=len(pieces))
    sequence.sampler_state.rankings.update({index: Ranking(-1.0, ()) for index in range(len(pieces))})
    processor.open(sequence, Detokenizer(encoded), reader_of(HERMES, thoughts=ThoughtTags("<think>", "</think>")))
    events = []
    token_ids, sizes = list(range(len(pieces))), itertools.cycle(steps)
    while token_ids:
        size = next(sizes)
        new, token_ids = token_ids[:size], token_ids[size:]
        ending = None if token_ids else Finished("stop", Usage(prompt_tokens=1))
        events += processor.process([("a", new, ending)])
    told = [each for _, event in events if isinstance(event, Delta) for each in event.logprobs]
    return [each.chosen.piece.decode() for each in told if each.chosen.piece.strip()]
