"""The default embedding model against sentence-transformers run directly."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.config.schema import ModelConfig
from server.encoders.batcher import Batcher, EncodeOutcome
from server.encoders.encoded import Encoded
from server.encoders.encoder import Encoder, Rows, Speller, Texts
from server.errors import ContextLengthExceeded
from server.types import Token

pytestmark = pytest.mark.integration

RANDOM = random.Random(7)
WORDS = [
    "the",
    "harbour",
    "engine",
    "kilometres",
    "of",
    "Zürich's",
    "北京",
    "re-entry",
    "e-mail",
    "☕",
    "don't",
    "3.14",
]
TEXTS = [
    "a",
    "  leading and trailing space \n",
    "UPPER lower [SEP] [CLS] \x00 control",
    *(" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 120))) for _ in range(40)),
    "longer than the model accepts " * 100,
]


def embed(embedder: Encoder[Any], texts: list[str]) -> Encoded:
    """Embed through a batcher, as one request."""
    future: Future[EncodeOutcome] = Future()
    batcher = Batcher(embedder)
    batcher.submit("r", Texts(texts, "end"), on_done=future.set_result)
    outcome = future.result(timeout=120)
    batcher.close()
    assert isinstance(outcome, Encoded), outcome
    return outcome


def cosines(left: Rows, right: Rows) -> np.ndarray[Any, Any]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def test_vectors_equal_those_of_sentence_transformers(
    embedder: Encoder[Any], encoder_weights: Callable[[str], tuple[ModelConfig, Path]]
) -> None:
    from sentence_transformers import SentenceTransformer

    _, folder = encoder_weights("all-minilm-l6-v2")
    direct = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)

    assert np.abs(1 - cosines(embed(embedder, TEXTS).rows, direct)).max() <= 1e-5


def test_vectors_are_float32_as_the_model_pools_them(embedder: Encoder[Any]) -> None:
    """Although its last module scales them: whether a vector is to have norm 1 is for each request to say."""
    outcome = embed(embedder, TEXTS)

    assert outcome.rows.dtype == np.float32
    assert not np.isclose(np.linalg.norm(outcome.rows, axis=1), 1, atol=0.1).any()
    assert outcome.num_truncated == 1


def test_company_does_not_change_a_vector(embedder: Encoder[Any]) -> None:
    together = embed(embedder, TEXTS).rows

    alone = np.concatenate([embed(embedder, [text]).rows for text in TEXTS[:8]])

    assert cosines(alone, together[:8]).min() >= 0.99999


def test_the_models_own_limit_is_kept(embedder: Encoder[Any]) -> None:
    """Its network has 512 positions, but its makers trained it, and cut, at 256."""
    assert embedder.facts.context_length == 256
    with pytest.raises(
        ContextLengthExceeded, match=r"input\[1\] has 502 tokens but model 'all-minilm-l6-v2' accepts 256"
    ):
        embedder.tokenize(Texts(["short", "word " * 500]))


def test_facts_describe_the_model(embedder: Encoder[Any]) -> None:
    facts = embedder.facts

    assert (facts.dimensions, facts.num_parameters, facts.architecture) == (384, 22_713_216, "BertModel")
    assert facts.details["dtype"] == "float32" and facts.details["threads"] == "2"
    assert facts.details["pooling"] == "mean"
    assert facts.special_token_ids == ([101], [102])


def test_tokens_say_where_they_stand_whatever_the_models_limit(embedder: Encoder[Any]) -> None:
    assert isinstance(embedder, Speller)

    (short, long) = embedder.spell(["Zürich ☕", "word " * 500], add_special_tokens=True)

    assert short[0] == Token(101, "[CLS]")
    assert [(token.text, token.start, token.stop) for token in short[1:-1]] == [("Zürich", 0, 6), ("☕", 7, 8)]
    assert len(long) == 502


def test_far_too_long_a_text_is_not_even_tokenised(embedder: Encoder[Any]) -> None:
    assert isinstance(embedder, Speller)

    with pytest.raises(ContextLengthExceeded, match=r"inputs\[1\] has 20000 characters but at most 16384"):
        embedder.spell(["a", "b" * 20_000], add_special_tokens=True)
