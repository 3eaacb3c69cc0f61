from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.model_shapes import LLAMA3_8B, QWEN3_0_6B, QWEN3_8B
from server.bindings.context_options import ContextOptions
from server.bindings.gpu import Gpu
from server.bindings.memory_estimate import estimate_chat, estimate_encoder, most_gpu_layers
from server.bindings.placement import ALL_LAYERS, Placement

GIB = 1 << 30
OPTIONS = ContextOptions(num_cells=16_384, max_sequences=80, num_threads=8, flash_attention=True)
HEADER = QWEN3_8B.header("Q4_K_M")
WEIGHTS = sum(tensor.size_bytes for tensor in HEADER.tensors)
EMBEDDINGS = HEADER.tensors[0].size_bytes
ALL = Placement(gpu_layers=ALL_LAYERS)


def gpu(index: int = 0, *, total: int = 80 * GIB, used: int = 0) -> Gpu:
    return Gpu(index, f"GPU-{index}", "H100", total, used, "9.0", "570")


def test_without_a_gpu_all_is_in_the_machines_memory() -> None:
    (own,) = estimate_chat(HEADER, OPTIONS, Placement(), []).needs

    assert (own.device, own.weights, own.kv) == ("cpu", WEIGHTS, 16_384 * 147_456)
    assert own.total == own.weights + own.kv + own.compute + own.runtime


def test_with_all_layers_on_a_gpu_only_the_embeddings_stay_behind() -> None:
    estimate = estimate_chat(HEADER, OPTIONS, ALL, [gpu()])

    own, card = estimate.needs
    assert (own.weights, own.kv) == (EMBEDDINGS, 0)
    assert (card.device, card.weights, card.kv) == ("cuda:0", WEIGHTS - EMBEDDINGS, 16_384 * 147_456)
    assert estimate.gpu_layers == 37


def test_embeddings_that_are_the_output_matrix_too_are_on_both() -> None:
    header = QWEN3_0_6B.header("Q8_0")
    own, card = estimate_chat(header, OPTIONS, ALL, [gpu()]).needs

    assert own.weights == header.tensors[0].size_bytes
    assert card.weights == sum(tensor.size_bytes for tensor in header.tensors)


def test_each_layer_is_counted_once_wherever_it_is() -> None:
    for count in (1, 10, 36):
        own, card = estimate_chat(HEADER, OPTIONS, Placement(gpu_layers=count), [gpu()]).needs

        assert own.weights + card.weights == WEIGHTS
        assert own.kv + card.kv == 16_384 * 147_456


def test_two_gpus_share_layers_and_cells() -> None:
    placement = replace(ALL, tensor_split=(3.0, 1.0))

    _, first, second = estimate_chat(HEADER, OPTIONS, placement, [gpu(), gpu(1)]).needs

    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    assert first.kv == pytest.approx(3 * second.kv, rel=0.2)
    assert first.weights + second.weights == WEIGHTS - EMBEDDINGS


def test_rows_are_shared_out_evenly() -> None:
    placement = replace(ALL, split="row", tensor_split=(1.0, 1.0))

    _, first, second = estimate_chat(HEADER, OPTIONS, placement, [gpu(), gpu(1)]).needs

    assert first.weights == pytest.approx(second.weights, rel=0.01)


def test_attention_without_fusing_takes_memory_by_the_cells() -> None:
    plain = replace(OPTIONS, flash_attention=False)

    fused, all_scores = (estimate_chat(HEADER, each, ALL, [gpu()]).of("cuda:0").compute for each in (OPTIONS, plain))

    assert all_scores - fused > 0.9 * (512 * 16_384 * 32 * 4 - fused)


def test_an_encoder_that_sees_all_at_once_keeps_nothing() -> None:
    header = replace(HEADER, values={**HEADER.values, "qwen3.attention.causal": False})

    estimate = estimate_encoder(header, call_tokens=8192, placement=Placement(), gpus=[])

    assert estimate.of("cpu").kv == 0
    assert estimate.of("cpu").compute > 8192 * QWEN3_8B.vocab_size * 4


@pytest.mark.parametrize(("free_gib", "least", "most"), [(80, 37, 37), (5, 15, 36), (0, 0, 0)])
def test_as_many_layers_go_to_a_gpu_as_fit(free_gib: int, least: int, most: int) -> None:
    card = gpu(used=(80 - free_gib) * GIB)
    card = replace(card, total_bytes=card.total_bytes, used_bytes=card.used_bytes)

    layers = most_gpu_layers(HEADER, OPTIONS, ALL, [card], headroom=0.01)

    assert least <= (37 if layers == ALL_LAYERS else layers) <= most


def test_what_fits_fits_and_one_more_does_not() -> None:
    card = gpu(total=8 * GIB, used=3 * GIB)

    layers = most_gpu_layers(HEADER, OPTIONS, ALL, [card])

    def needed(count: int) -> int:
        return estimate_chat(HEADER, OPTIONS, Placement(gpu_layers=count), [card]).of("cuda:0").total

    room = card.free_bytes - card.total_bytes // 20
    assert 0 < layers < 37
    assert needed(layers) <= room < needed(layers + 1)


def test_a_llama_8b_with_eight_thousand_cells_takes_what_people_see() -> None:
    """About 4.6 GiB of weights and 1 GiB of cells; nvidia-smi shows some 6.3 GiB with a context of 8,192."""
    options = ContextOptions(num_cells=8192, max_sequences=1, num_threads=1, flash_attention=True)

    card = estimate_chat(LLAMA3_8B.header("Q4_K_M"), options, ALL, [gpu()]).of("cuda:0")

    assert card.kv == GIB
    assert 5.6 * GIB < card.total < 6.9 * GIB
