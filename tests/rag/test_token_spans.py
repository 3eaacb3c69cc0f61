from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest, ModelUnavailable
from server.rag.token_spans import estimated_spans, token_spans
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
