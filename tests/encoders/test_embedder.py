"""The default embedding model against sentence-transformers run directly."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.bindings.cpu import read_cpu
from server.config.schema import KernelName, ModelConfig
from server.encoders.batcher import Batcher, EncodeOutcome
from server.encoders.encoded import Encoded
from server.encoders.encoder import Encoder, Rows, Speller, Texts
from server.encoders.kernels import torch_kernels, turn
from server.encoders.loading import load_encoder
from server.errors import ContextLengthExceeded, LoadFailed
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


COMPANY_TOLERANCE: dict[KernelName, float] = {"torch-fp32": 1e-6, "torch-mixed-bf16": 1e-4, "torch-bf16": 1e-4}
"""1 - cosine of a text's vector alone and among others: as docs/api.md and decision 0011 promise it."""


@pytest.mark.parametrize("kernel", torch_kernels("cpu", read_cpu().features))
def test_company_changes_a_vector_within_the_kernels_tolerance(
    encoder_weights: Callable[[str], tuple[ModelConfig, Path]], kernel: KernelName
) -> None:
    config, folder = encoder_weights("all-minilm-l6-v2")
    embedder = load_encoder(config.model_copy(update={"kernel": kernel}), folder, num_threads=2)
    together = embed(embedder, TEXTS).rows

    alone = np.concatenate([embed(embedder, [text]).rows for text in TEXTS])

    assert turn(alone, together) <= COMPANY_TOLERANCE[kernel]


@pytest.fixture(scope="module")
def prompted(
    encoder_weights: Callable[[str], tuple[ModelConfig, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Encoder[Any]:
    """The default model as if it wanted a prompt for queries, used unless told otherwise, and none for documents."""
    config, folder = encoder_weights("all-minilm-l6-v2")
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("prompted") / "model"))
    prompts = {"query": "query: ", "document": "", "title": "title: "}
    settings = {"prompts": prompts, "default_prompt_name": "query"}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    configured = config.model_copy(update={"prompts": {"title": "headline: ", "own": "own: "}})
    return load_encoder(configured, copy, num_threads=2)


@pytest.mark.parametrize(("prompt", "text"), [(None, "query: a cat"), ("", "a cat"), ("own: ", "own: a cat")])
def test_an_empty_prompt_is_not_the_default_one(prompted: Encoder[Any], prompt: str | None, text: str) -> None:
    assert prompted.tokenize(Texts(["a cat"], prompt=prompt)) == prompted.tokenize(Texts([text], prompt=""))


def test_prompts_are_the_models_and_those_of_models_yaml(prompted: Encoder[Any]) -> None:
    assert prompted.facts.prompts == {"query": "query: ", "document": "", "title": "headline: ", "own": "own: "}


def test_prompts_that_the_model_does_not_pool_are_refused(
    encoder_weights: Callable[[str], tuple[ModelConfig, Path]], tmp_path: Path
) -> None:
    config, folder = encoder_weights("all-minilm-l6-v2")
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    pooling = json.loads((copy / "1_Pooling" / "config.json").read_text())
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({**pooling, "include_prompt": False}))

    with pytest.raises(LoadFailed, match="leaves prompts out of its pooling"):
        load_encoder(config.model_copy(update={"prompts": {"query": "query: "}}), copy, num_threads=1)


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
