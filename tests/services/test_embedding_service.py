"""Embeddings: prompts, lengths and what the model is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import InvalidRequest, RequestTooLarge
from server.models.registry import ModelEntry, ModelRegistry
from server.protocols import EmbeddingResult
from server.services.embeddings import EmbeddingOptions, EmbeddingService
from server.types import ModelFacts
from tests.fakes.models import FakeEmbedder

E5 = {"query": "query: ", "passage": "passage: "}


def serve(embedder: FakeEmbedder, **config: Any) -> EmbeddingService:
    model = ModelConfig(id="m", kind="embedding", backend="sentence_transformers", source="file:x", **config)
    return EmbeddingService(ModelRegistry([ModelEntry(model, embedder)]), Limits(max_inputs=4))


def embedder_with(prompts: dict[str, str]) -> FakeEmbedder:
    return FakeEmbedder(facts=ModelFacts(context_length=512, dimensions=2, prompts=prompts))


class WideEmbedder(FakeEmbedder):
    """Yields the given rows."""

    def __init__(self, rows: npt.NDArray[np.float32]) -> None:
        super().__init__(facts=ModelFacts(context_length=512, dimensions=rows.shape[1]))
        self._rows = rows

    async def embed(self, inputs: Any, **options: Any) -> EmbeddingResult:
        self.options.append(options)
        return EmbeddingResult(self._rows, 1)


@pytest.mark.parametrize(
    ("input_type", "prompt"),
    [
        ("query", "query: "),
        ("search_query", "query: "),
        ("passage", "passage: "),
        ("document", "passage: "),
        ("search_document", "passage: "),
        ("clustering", ""),
    ],
)
async def test_an_input_type_finds_the_models_prompt_for_it(input_type: str, prompt: str) -> None:
    embedder = embedder_with(E5)

    await serve(embedder).embed("m", ["a"], EmbeddingOptions(input_type=input_type))

    assert embedder.options[-1]["prompt"] == prompt


async def test_a_models_own_name_for_a_prompt_comes_first() -> None:
    embedder = embedder_with({"query": "q: ", "search_query": "s: "})

    await serve(embedder).embed("m", ["a"], EmbeddingOptions(input_type="search_query"))

    assert embedder.options[-1]["prompt"] == "s: "


async def test_an_input_type_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"expected one of .*clustering.*query") as caught:
        await serve(embedder_with(E5)).embed("m", ["a"], EmbeddingOptions(input_type="qeury"))

    assert caught.value.param == "input_type"


async def test_a_prompt_is_taken_by_name() -> None:
    embedder = embedder_with(E5)

    await serve(embedder).embed("m", ["a"], EmbeddingOptions(prompt_name="passage"))

    assert embedder.options[-1]["prompt"] == "passage: "


@pytest.mark.parametrize("options", [EmbeddingOptions(prompt_name="document"), EmbeddingOptions(input_type="passage")])
async def test_an_empty_prompt_is_one_and_not_the_default(options: EmbeddingOptions) -> None:
    """Most models have an empty one for documents, and some put that for queries before all who do not choose."""
    embedder = embedder_with({"query": "query: ", "document": ""})

    await serve(embedder).embed("m", ["a"], options)

    assert embedder.options[-1]["prompt"] == ""


@pytest.mark.parametrize(("prompts", "known"), [(E5, "passage, query"), ({}, "none")])
async def test_an_unknown_prompt_is_refused_with_those_there_are(prompts: dict[str, str], known: str) -> None:
    with pytest.raises(InvalidRequest, match=f"no prompt 'search'; its prompts: {known}"):
        await serve(embedder_with(prompts)).embed("m", ["a"], EmbeddingOptions(prompt_name="search"))


async def test_two_ways_to_choose_a_prompt_are_one_too_many() -> None:
    with pytest.raises(InvalidRequest, match="send one of them"):
        await serve(embedder_with(E5)).embed("m", ["a"], EmbeddingOptions(prompt_name="query", input_type="query"))


async def test_vectors_are_cut_to_a_configured_length_and_of_norm_1_again() -> None:
    service = serve(WideEmbedder(np.array([[0.6, 0, 0.8, 0], [0, 0, 0, 1]], dtype=np.float32)), dimensions=(2, 3))

    embeddings = await service.embed("m", ["a", "b"], EmbeddingOptions(dimensions=2))

    np.testing.assert_allclose(embeddings.vectors, [[1, 0], [0, 0]])
    assert embeddings.vectors.dtype == np.float32


async def test_cut_vectors_keep_their_norm_where_that_was_wanted() -> None:
    service = serve(WideEmbedder(np.array([[3, 4, 5]], dtype=np.float32)), dimensions=(2,))

    embeddings = await service.embed("m", ["a"], EmbeddingOptions(dimensions=2, normalize=False))

    assert embeddings.vectors.tolist() == [[3, 4]]


async def test_a_length_that_the_model_does_not_have_is_refused_with_those_it_has() -> None:
    service = serve(embedder_with({}), dimensions=(1, 64))  # it yields 2, so 64 is none

    with pytest.raises(InvalidRequest, match="dimensions is 64 but model 'm' yields 1, 2") as caught:
        await service.embed("m", ["a"], EmbeddingOptions(dimensions=64))

    assert caught.value.param == "dimensions"


async def test_a_lazy_model_is_loaded_before_it_is_asked_what_it_can_do() -> None:
    class LazyEmbedder(FakeEmbedder):
        async def embed(self, inputs: Any, **options: Any) -> EmbeddingResult:
            self.facts = ModelFacts(context_length=512, dimensions=2, prompts=E5)
            return await super().embed(inputs, **options)

    embedder = LazyEmbedder(state="unloaded")

    await serve(embedder).embed("m", ["a"], EmbeddingOptions(prompt_name="query"))

    assert (embedder.calls[-1], embedder.options[-1]["prompt"]) == (["a"], "query: ")


async def test_truncation_lane_and_norm_reach_the_model() -> None:
    embedder = embedder_with({})

    await serve(embedder).embed("m", ["a"], EmbeddingOptions(truncate="mean", lane="bulk", normalize=False))

    assert embedder.options == [{"truncate": "mean", "prompt": None, "lane": "bulk", "normalize": False}]


async def test_token_ids_of_the_model_pass_as_they_are() -> None:
    embedder = embedder_with({})

    embeddings = await serve(embedder).embed("m", [[101, 7592, 102]], EmbeddingOptions(token_encoding="model"))

    assert embedder.calls == [[[101, 7592, 102]]]
    assert embeddings.token_encoding == "model"


async def test_token_ids_are_known_by_the_models_special_tokens() -> None:
    embedder = FakeEmbedder(facts=ModelFacts(context_length=512, dimensions=2, special_token_ids=([101], [102])))

    embeddings = await serve(embedder).embed("m", [[101, 7592, 102], [101, 102]])

    assert embedder.calls == [[[101, 7592, 102], [101, 102]]]
    assert embeddings.token_encoding == "model"


async def test_more_inputs_than_the_limit_are_refused_before_the_model_sees_them() -> None:
    embedder = embedder_with({})

    with pytest.raises(RequestTooLarge, match="5 texts but at most 4"):
        await serve(embedder).embed("m", ["a"] * 5)

    assert not embedder.calls


async def test_more_text_than_can_be_told_of_is_not_tokenised() -> None:
    embedder = embedder_with({})

    with pytest.raises(RequestTooLarge, match="characters but at most 4000000 are tokenised"):
        await serve(embedder).tokenize("m", ["a" * 2_000_001, "b" * 2_000_000])

    assert not embedder.calls
