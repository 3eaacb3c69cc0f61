from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from benchmarks.model_shapes import Q4_K, Q6_K, Q8_0, TINY, TINY_EXPERTS, ModelShape, Quantisation, tensors_of
from benchmarks.synthetic_gguf import random_blocks, vocabulary, write_synthetic_gguf
from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import BLOCKS, read_header


@pytest.mark.parametrize("kind", [Q8_0, Q4_K, Q6_K])
def test_random_blocks_are_finite_and_have_the_spread_asked_for(kind: int) -> None:
    pool = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8)
    blocks = random_blocks(kind, 2000 * BLOCKS[kind][1], 0.02, pool)

    weights = gguf.dequantize(blocks.reshape(-1, BLOCKS[kind][1]), gguf.GGMLQuantizationType(kind))

    assert np.isfinite(weights).all()
    assert weights.std() == pytest.approx(0.02, rel=0.05)
    assert abs(weights.mean()) < 0.001


def test_the_vocabulary_has_the_size_asked_for_and_no_token_twice() -> None:
    tokens, merges = vocabulary(151_936)

    assert len(tokens) == len(set(tokens)) == 151_936
    assert {"Ġriver", "Ġthe"} & set(tokens) == {"Ġriver"}
    assert all("".join(merge.split(" ")) in set(tokens) for merge in merges[:50])


def test_a_file_says_what_its_shape_says(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"

    write_synthetic_gguf(path, TINY, "Q4_K_M")

    header = read_header(path)
    assert header.tensors == tuple(tensors_of(TINY, "Q4_K_M"))
    assert TINY.values().items() <= {name: pytest.approx(value) if isinstance(value, float) else value
                                     for name, value in header.values.items()}.items()  # fmt: skip
    assert header.array_lengths["tokenizer.ggml.tokens"] == TINY.vocab_size
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_synthetic_gguf(tmp_path / f"{name}.gguf", TINY_EXPERTS, "Q8_0")

    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("shape", "quantisation"), [(TINY, "Q4_K_M"), (TINY, "Q8_0"), (TINY_EXPERTS, "Q4_K_M"), (TINY_EXPERTS, "Q8_0")]
)
def test_llama_cpp_loads_it_and_computes_finite_logits(
    tmp_path: Path, shape: ModelShape, quantisation: Quantisation
) -> None:
    from server.bindings.llama_context import DECODED, LlamaContext
    from server.bindings.llama_model import LlamaModel

    path = tmp_path / "tiny.gguf"
    write_synthetic_gguf(path, shape, quantisation)
    options = ContextOptions(num_cells=256, max_sequences=1, num_threads=1)

    with LlamaModel(path) as model, LlamaContext(model, options) as context:
        token_ids = np.array(model.vocab.tokenize(" the quiet river crosses a bridge", parse_special=False), np.int32)
        positions = np.arange(len(token_ids), dtype=np.int32)
        status = context.decode(token_ids, positions, np.zeros_like(positions), positions == len(token_ids) - 1)
        logits = context.logits(1)[0].copy()
        words = model.vocab.tokenize(" river bridge", parse_special=False)

    assert status == DECODED
    assert np.isfinite(logits).all()
    assert 1 < logits.std() < 20
    assert len(words) == 2
