"""What networks keep of a token, against figures that are known of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.model_shapes import LLAMA3_8B, QWEN3_8B, QWEN3_30B_A3B, ModelShape
from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import GgufHeader, Value
from server.bindings.kv_size import kv_by_layer, shape_of

OPTIONS = ContextOptions(num_cells=8192, max_sequences=16, num_threads=1)


def header(architecture: str, **values: Value) -> GgufHeader:
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in values.items()}
    return GgufHeader({"general.architecture": architecture, **named}, {}, ())


@pytest.mark.parametrize(("shape", "token_bytes"), [(QWEN3_8B, 147_456), (LLAMA3_8B, 131_072), (QWEN3_30B_A3B, 98_304)])
def test_a_cell_of_a_transformer_has_its_known_size(shape: ModelShape, token_bytes: int) -> None:
    assert sum(kv_by_layer(shape.header("Q4_K_M"), OPTIONS)) == 8192 * token_bytes


def test_a_smaller_type_takes_its_part() -> None:
    full, eight, four = (
        sum(kv_by_layer(QWEN3_8B.header("Q4_K_M"), replace(OPTIONS, kv_type=kind))) for kind in ("f16", "q8_0", "q4_0")
    )

    assert eight / full == pytest.approx(34 / 64)
    assert four / full == pytest.approx(18 / 64)


def test_cells_are_rounded_up_for_each_stream() -> None:
    """llama.cpp gives each of 3 sequences a whole number of 256 cells."""
    streams = replace(OPTIONS, num_cells=1000, max_sequences=3, streams=True)
    unified = replace(OPTIONS, num_cells=1000, max_sequences=3)

    assert (streams.num_reserved_cells, unified.num_reserved_cells) == (3 * 512, 1024)


def test_recurrent_layers_keep_a_state_for_each_sequence_and_no_cells() -> None:
    mamba = header(
        "mamba2", block_count=2, attention__head_count=0, ssm__conv_kernel=4, ssm__inner_size=128,
        ssm__state_size=16, ssm__group_count=1, embedding_length=64,
    )  # fmt: skip
    state = 4 * (3 * (128 + 2 * 16) + 16 * 128)

    assert kv_by_layer(mamba, OPTIONS) == [16 * state] * 2
    assert not shape_of(mamba).can_share_prefixes


def test_hybrid_layers_keep_what_each_is_made_for() -> None:
    hybrid = header(
        "granitehybrid", block_count=2, attention__head_count=4, attention__head_count_kv=(0, 2), embedding_length=64,
        ssm__conv_kernel=4, ssm__inner_size=128, ssm__state_size=16, ssm__group_count=1,
    )  # fmt: skip

    recurrent, attending = kv_by_layer(hybrid, OPTIONS)

    assert recurrent == 16 * 4 * (3 * (128 + 2 * 16) + 16 * 128)
    assert attending == 8192 * 2 * (2 * 16) * 2


def test_latent_attention_keeps_one_short_vector() -> None:
    deepseek = header(
        "deepseek2", block_count=1, attention__head_count=16, attention__head_count_kv=1, embedding_length=2048,
        attention__kv_lora_rank=512, rope__dimension_count=64,
    )  # fmt: skip

    assert kv_by_layer(deepseek, OPTIONS) == [8192 * (512 + 64) * 2]


def test_layers_that_share_cells_of_others_keep_none() -> None:
    gemma = header(
        "gemma3n", block_count=4, attention__head_count=4, attention__head_count_kv=1, embedding_length=64,
        attention__shared_kv_layers=2,
    )  # fmt: skip

    assert [bool(size) for size in kv_by_layer(gemma, OPTIONS)] == [True, True, False, False]


def test_a_window_is_seen() -> None:
    assert shape_of(header("gemma3", attention__sliding_window=512)).has_window
    assert not shape_of(QWEN3_8B.header("Q8_0")).has_window
