"""What GGUF embedding models and rerankers have in common: opening the file, and how long an input may be."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from server.bindings.backend_gpus import backend_gpus
from server.bindings.build_info import load_build_info
from server.bindings.llama_encoder import LlamaEncoder
from server.bindings.llama_model import LlamaModel
from server.bindings.placement import configured_placement
from server.config.schema import ModelConfig
from server.encoders.tokenizer import choose_max_tokens
from server.types import ModelFacts

_MAX_DEFAULT_TOKENS = 8192
_MEMORY_SHARE = 4
"""An input may take this part of the machine's memory by default."""


def open_gguf(path: Path, config: ModelConfig, *, portable_kernels: bool) -> LlamaModel:
    """Load the weights. `portable_kernels`: without those that a CPU may lack.

    Raises:
        LoadFailed: The file is missing, no GGUF, damaged, of an unknown architecture or too large for the memory.
    """
    build = load_build_info()
    placement = configured_placement(config, num_gpus=len(backend_gpus()))
    return LlamaModel(path, placement=placement, use_extra_bufts=build.use_extra_bufts and not portable_kernels)


def max_tokens_of(model: LlamaModel, config: ModelConfig) -> int:
    """Decide how many tokens one input may have: as configured, or the model's maximum where that is affordable.

    llama.cpp keeps 4 bytes for each word of the vocabulary and each token of an input that is computed at once: for
    bge-m3 and its 8,192 tokens, 8 GB.
    """
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    affordable = memory_bytes // _MEMORY_SHARE // (4 * model.vocab.size)
    own = max(1, min(model.context_length, _MAX_DEFAULT_TOKENS, affordable))
    return choose_max_tokens(config.context, own=own, possible=model.context_length)


def facts_of(model: LlamaModel, network: LlamaEncoder, *, dimensions: int = 0, **details: str) -> ModelFacts:
    """Describe a loaded model."""
    build = load_build_info()
    return ModelFacts(
        context_length=network.max_tokens,
        dimensions=dimensions,
        num_parameters=model.num_parameters,
        architecture=model.architecture,
        details={
            "runtime": f"llama.cpp, llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
            "build": f"{build.compiler_version} {build.wheel_sha256[:12]}".strip() or "unknown",
            "gpu_layers": model.placement.described_layers,
            "repacked_weights": "on" if model.use_extra_bufts else "off",
            "threads": str(network.num_threads),
            "packed_tokens": str(network.call_tokens),
            **details,
        },
    )
