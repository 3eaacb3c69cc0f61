"""A chat model on the GPU answers as it does on the processor, and takes what was estimated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import read_header
from server.bindings.gpu import Gpu, read_gpus
from server.bindings.llama_context import DECODED, LlamaContext
from server.bindings.llama_model import LlamaModel
from server.bindings.memory_estimate import CUDA_RUNTIME_BYTES, estimate_chat
from server.bindings.placement import ALL_LAYERS, Placement

ALL = Placement(gpu_layers=ALL_LAYERS)
PROMPT = "The capital of France is Paris. The capital of Italy is"
NUM_TOKENS = 32
Floats = npt.NDArray[np.float32]


def options(*, flash_attention: bool, streams: bool = False) -> ContextOptions:
    return ContextOptions(
        num_cells=1024, max_sequences=4, num_threads=4, flash_attention=flash_attention, streams=streams
    )


def logits_of(
    path: Path, placement: Placement, sizes: ContextOptions, follow: list[int] | None = None
) -> Iterator[Floats]:
    """Logits after the prompt and after each token: of `follow` where it is given, else of the likeliest."""
    with LlamaModel(path, placement=placement) as model, LlamaContext(model, sizes) as context:
        tokens = model.vocab.tokenize(PROMPT, parse_special=False)
        start = 0
        for step in range(NUM_TOKENS):
            positions = np.arange(start, start + len(tokens), dtype=np.int32)
            wants = positions == positions[-1]
            assert context.decode(np.array(tokens, np.int32), positions, np.zeros_like(positions), wants) == DECODED
            logits = context.logits(1)[0].copy()
            yield logits
            start += len(tokens)
            tokens = [int(logits.argmax()) if follow is None else follow[step]]


@pytest.mark.parametrize("flash_attention", [False, True])
@pytest.mark.parametrize("streams", [False, True])
def test_greedy_answers_are_those_of_the_processor(chat_weights: Path, flash_attention: bool, streams: bool) -> None:
    """Where the two differ, they disagree about a near tie."""
    on_cpu = list(logits_of(chat_weights, Placement(), options(flash_attention=False)))
    answer = [int(logits.argmax()) for logits in on_cpu]

    sizes = options(flash_attention=flash_attention, streams=streams)
    on_gpu = list(logits_of(chat_weights, ALL, sizes, follow=answer))

    for cpu, gpu, token in zip(on_cpu, on_gpu, answer, strict=True):
        assert np.isfinite(gpu).all()
        assert gpu.max() - gpu[token] < 0.5
        assert np.abs(gpu - cpu).max() < 0.05 * np.abs(cpu).max() + 0.5


def test_layers_may_be_on_both(chat_weights: Path) -> None:
    sizes = options(flash_attention=False)
    on_cpu = [int(logits.argmax()) for logits in logits_of(chat_weights, Placement(), sizes)]

    on_both = list(logits_of(chat_weights, Placement(gpu_layers=15), sizes, follow=on_cpu))

    assert all(logits.max() - logits[token] < 0.5 for logits, token in zip(on_both, on_cpu, strict=True))


def test_the_gpu_holds_what_was_estimated(chat_weights: Path, gpu: Gpu) -> None:
    """Without the CUDA context, which the first model of a process brings along."""
    sizes = ContextOptions(num_cells=16_384, max_sequences=16, num_threads=4, flash_attention=True)
    needed = estimate_chat(read_header(chat_weights), sizes, ALL, [gpu]).of(gpu.device)
    small = ContextOptions(num_cells=256, max_sequences=1, num_threads=1)
    with LlamaModel(chat_weights, placement=ALL) as model, LlamaContext(model, small):
        pass  # the CUDA context is there from now on
    before = read_gpus()[gpu.index].used_bytes

    with LlamaModel(chat_weights, placement=ALL) as model, LlamaContext(model, sizes):
        taken = read_gpus()[gpu.index].used_bytes - before

    assert needed.total - CUDA_RUNTIME_BYTES == pytest.approx(taken, rel=0.15, abs=64 << 20)
