"""Inputs laid end to end give what padded ones give. On a CPU and in fp32: the same way through everything but the
GPU's own attention, which has not been run here; of that, only how it is called is checked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server.config.schema import ModelConfig
from server.encoders import kernel_choice, kernels, packing
from server.encoders.embedder import load_embedder
from server.encoders.encoder import EncodedItem, Encoder, Pairs, Rows, Texts
from server.encoders.kernels import turn
from server.encoders.loading import measure_encoder
from server.encoders.packing import attend_packed, check_packing, pack, pack_classifier
from server.encoders.reranker import load_torch_reranker
from server.encoders.torch_device import TORCH_FORMATS, TorchFormat
from server.errors import LoadFailed

FindWeights = Callable[[str], tuple[ModelConfig, Path]]

TEXTS = [" ".join(f"word{n % (7 + seed)}" for n in range(length)) for seed, length in enumerate((3, 30, 1, 90, 120))]
QUERY = "what is the capital of france"
DOCUMENTS = [
    "Paris is the capital of France.",
    "Lyon is a city in France. " * 10,
    "The seat of government is called the capital. " * 30,
    "Bananas are rich in potassium.",
]
ITEMS = [EncodedItem([5, 6, 7], [0, 0, 1]), EncodedItem([8], [0]), EncodedItem([9, 10], [0, 1])]


@pytest.fixture
def packed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `kernel: torch-packed-fp16` compute in what a CPU computes well."""
    monkeypatch.setitem(TORCH_FORMATS, "torch-packed-fp16", TorchFormat(torch.float32, is_packed=True))


def test_items_lie_end_to_end_and_positions_begin_anew() -> None:
    inputs = pack(ITEMS, ["input_ids", "token_type_ids"], "cpu", first_position=2)

    assert inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 1, 0, 0, 1]]
    assert inputs["position_ids"].tolist() == [[2, 3, 4, 2, 2, 3]]
    assert inputs["cu_seq_lens_q"].tolist() == inputs["cu_seq_lens_k"].tolist() == [0, 3, 4, 6]


def test_a_network_is_given_what_it_wants_and_where_items_begin() -> None:
    inputs = pack(ITEMS, ["input_ids", "attention_mask"], "cpu", first_position=0)

    assert inputs.keys() == {
        *("input_ids", "position_ids"),
        *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
    }
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert inputs["max_length_q"] == 3


class Attention(torch.nn.Module):
    def __init__(self, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal


BOUNDS = torch.tensor([0, 3, 4, 6], dtype=torch.int32)
LENGTHS: dict[str, Any] = {"cu_seq_lens_q": BOUNDS, "max_length_q": 3}


def states(num_heads: int, num_key_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of six tokens: [1, heads, tokens, width]."""
    generator = torch.Generator().manual_seed(1)
    heads = (num_heads, num_key_heads, num_key_heads)
    query, key, value = (torch.randn(1, each, 6, 8, generator=generator) for each in heads)
    return query, key, value


@pytest.mark.parametrize("num_key_heads", [4, 2])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_stays_within_an_item(is_causal: bool, num_key_heads: int) -> None:
    """The oracle: attention over all tokens, with a mask that lets none see another item."""
    query, key, value = states(4, num_key_heads)
    item_of = torch.tensor([0, 0, 0, 1, 2, 2])
    mask = item_of[:, None] == item_of
    mask = mask.tril() if is_causal else mask
    repeated = (each.repeat_interleave(4 // num_key_heads, dim=1) for each in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)

    attended, _ = attend_packed(Attention(is_causal=is_causal), query, key, value, None, scaling=0.3, **LENGTHS)

    assert torch.allclose(attended, expected.transpose(1, 2), rtol=1.3e-6, atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_gpu_is_asked_for_the_same(monkeypatch: pytest.MonkeyPatch, is_causal: bool) -> None:
    def documented(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_q: torch.Tensor, cu_seq_k: torch.Tensor,
        max_q: int, max_k: int, *, scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
    ) -> torch.Tensor:  # fmt: skip
        """What torch says that `varlen_attn` does: [tokens, heads, width] in and out."""
        assert torch.equal(cu_seq_q, cu_seq_k) and max_q == max_k == 3
        pieces = [
            torch.nn.functional.scaled_dot_product_attention(
                *(each[start:stop].transpose(0, 1) for each in (query, key, value)),
                is_causal={(-1, -1): False, (-1, 0): True}[window_size],
                scale=scale,
                enable_gqa=enable_gqa,
            ).transpose(0, 1)
            for start, stop in pairwise(cu_seq_q.tolist())
        ]
        return torch.cat(pieces)

    monkeypatch.setattr(packing, "varlen_attn", documented)
    tensors = states(4, 2)
    expected, _ = attend_packed(Attention(is_causal=is_causal), *tensors, None, scaling=0.3, **LENGTHS)

    attended = packing._attend_on_gpu(*tensors, BOUNDS, 3, scale=0.3, causal=is_causal)

    assert torch.allclose(attended, expected, rtol=1.3e-6, atol=1e-5)


def test_torchs_own_function_takes_what_it_is_given() -> None:
    """On tensors without numbers, which need no GPU: names, types and shapes are right for the installed torch."""
    query = torch.empty(1, 12, 50, 32, dtype=torch.float16, device="meta")
    bounds = torch.empty(3, dtype=torch.int32, device="meta")

    attended = packing._attend_on_gpu(query, query, query, bounds, 30, scale=0.1, causal=False)

    assert attended.shape == (1, 50, 12, 32)


def test_attention_of_another_kind_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="sliding_window"):
        attend_packed(Attention(is_causal=False), *states(4, 4), None, sliding_window=2, **LENGTHS)


def test_a_network_that_mixes_items_up_is_refused() -> None:
    def mixing(items: object) -> Rows:
        total = sum(item.num_tokens for item in items)  # type: ignore[attr-defined]
        return np.array([item.num_tokens + total for item in items], np.float32)  # type: ignore[attr-defined]

    with pytest.raises(LoadFailed, match="does not keep packed inputs apart"):
        check_packing(mixing, ITEMS)


def test_a_head_that_is_not_known_is_refused() -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=10, dim=8, hidden_dim=8, n_layers=1, n_heads=2)

    with pytest.raises(LoadFailed, match="its head is not known"):
        pack_classifier(DistilBertForSequenceClassification(config))


@pytest.mark.integration
@pytest.mark.usefixtures("packed_in_fp32")
def test_packed_vectors_are_those_of_padded_texts(encoder_weights: FindWeights, embedder: Encoder[Any]) -> None:
    config, folder = encoder_weights("all-minilm-l6-v2")

    packed = load_embedder(folder, config, kernel="torch-packed-fp16", num_threads=2, details={})

    items = packed.tokenize(Texts(TEXTS))
    assert packed.budget.is_packed
    assert packed.facts.details["dtype"] == "float32, packed"
    assert turn(packed.forward(items), embedder.forward(items)) <= 1e-6


@pytest.mark.integration
@pytest.mark.usefixtures("packed_in_fp32")
def test_packed_scores_are_those_of_padded_pairs(encoder_weights: FindWeights) -> None:
    config, folder = encoder_weights("ms-marco-minilm-l12-v2")

    packed = load_torch_reranker(folder, config, kernel="torch-packed-fp16", num_threads=2, details={})
    padded = load_torch_reranker(folder, config, kernel="torch-fp32", num_threads=2, details={})

    items = packed.tokenize(Pairs(QUERY, DOCUMENTS))
    assert packed.forward(items) == pytest.approx(padded.forward(items), abs=1e-3)


@pytest.mark.integration
@pytest.mark.usefixtures("packed_in_fp32")
@pytest.mark.parametrize("model_id", ["all-minilm-l6-v2", "ms-marco-minilm-l12-v2"])
def test_all_that_is_chosen_on_a_gpu_can_be_chosen(
    encoder_weights: FindWeights, monkeypatch: pytest.MonkeyPatch, model_id: str
) -> None:
    """Layout and batch size are measured as on a GPU, on a CPU, with few texts and however slow it is."""
    monkeypatch.setattr(kernels, "torch_kernels", lambda *_: ("torch-fp32", "torch-packed-fp16"))
    monkeypatch.setattr(kernels, "_batch_sizes", lambda _: (128, 256))
    monkeypatch.setattr(kernels, "_texts", lambda: TEXTS[1:4:2] * 2)
    monkeypatch.setattr(kernel_choice, "MAX_SLOWDOWN", 1e6)
    config, folder = encoder_weights(model_id)

    found = measure_encoder(config, folder, num_threads=1, memory=None)

    *_, padded, packed = found.trials
    assert (padded.failure, packed.failure) == ("", "")
    assert {padded.batch_tokens, packed.batch_tokens} <= {128, 256}
    assert packed.difference < 1e-4
