from __future__ import annotations

import re
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest, ModelUnavailable
from server.rag.token_spans import MAX_PIECE_CHARS, estimated_spans, pieces, token_spans
from server.types import Token
from tests.fakes.models import FakeEmbedder


@dataclass
class WordTokenizer(FakeEmbedder):
    """A token for each word, whatever space is around it."""

    max_characters: int = 1_000_000

    async def tokenize(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[Token]]:  # type: ignore[override]
        assert not add_special_tokens
        self.calls.append(list(texts))
        return [list(_words(text)) for text in texts]


def _words(text: str) -> list[Token]:
    tokens, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        tokens.append(Token(0, word, start, at))
    return tokens


@pytest.mark.parametrize("num_words", [0, 1, 20, 30_000])
async def test_spans_are_those_of_the_whole_text(num_words: int) -> None:
    text = " ".join(f"word{number}" for number in range(num_words))

    spans = await token_spans(text, WordTokenizer())

    assert [text[start:end] for start, end in spans.tolist()] == text.split()


async def test_no_call_has_to_tell_too_many_tokens() -> None:
    """The event loop decodes an answer at once."""
    model = WordTokenizer()

    await token_spans("a word " * 50_000, model)

    assert max(sum(map(len, call)) for call in model.calls) <= 1 << 14


async def test_a_model_that_cannot_tell_gets_an_estimate() -> None:
    model = FakeEmbedder(error=InvalidRequest("it cannot", code="unsupported_value"))

    spans = await token_spans("Grüße, world: 12345!", model)

    texts = ["Gr", "üß", "e", ",", "worl", "d", ":", "1234", "5", "!"]
    assert ["Grüße, world: 12345!"[start:end] for start, end in spans.tolist()] == texts


@pytest.mark.parametrize("error", [ModelUnavailable("loading"), InvalidRequest("wrong")])
async def test_other_errors_are_the_callers(error: Exception) -> None:
    with pytest.raises(type(error)):
        await token_spans("text", FakeEmbedder(error=error))  # type: ignore[arg-type]


@given(st.text())
def test_estimates_are_in_order_and_leave_out_nothing_but_space(text: str) -> None:
    spans = estimated_spans(text)

    covered = np.zeros(len(text), bool)
    for start, end in spans.tolist():
        assert start < end and not covered[start:end].any()
        covered[start:end] = True
    assert [char for char, is_covered in zip(text, covered, strict=True) if not is_covered and not char.isspace()] == []
    assert np.all(np.diff(spans[:, 0]) > 0)


@given(st.text(alphabet=st.sampled_from("ab \n.") | st.characters(), max_size=300), st.integers(1, 100))
def test_pieces_hold_all_of_a_text(text: str, repeats: int) -> None:
    found = pieces(text * repeats)

    assert "".join((text * repeats)[start:end] for start, end in found) == text * repeats
    assert all(0 < end - start <= MAX_PIECE_CHARS for start, end in found)


def test_pieces_end_between_words() -> None:
    words = " ".join(f"w{index}" for index in range(5000))
    text = f"{words}.\n\n{words}"

    parts = [text[start:end] for start, end in pieces(text)]

    assert all(re.match(r" \w", part) and part[-1].isalnum() for part in parts[1:])
    assert len(parts) <= len(text) // (MAX_PIECE_CHARS - 20) + 1


def test_pieces_without_a_space_end_at_another_one() -> None:
    text = "line\n" * 2000

    assert all(text[start:end].endswith("line") for start, end in pieces(text)[:-1])


@pytest.mark.parametrize(
    "line",
    ["A sentence of words. And another one! ", "x" * 50, "# a\n", "\n \n", "word ", "| a | b |\n", ". ", "`"],
)
def test_the_time_for_pieces_grows_with_the_text_only(line: str) -> None:
    started_at = time.process_time()

    pieces(line * (400_000 // len(line)))

    assert time.process_time() - started_at < 10  # it is far below one; quadratic time would be minutes
