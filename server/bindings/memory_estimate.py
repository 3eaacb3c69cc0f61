"""What a GGUF model will take of each device's memory, computed from its header before anything is loaded.

Weights and KV cells are exact; what a step needs meanwhile is llama.cpp's business, and computed here by a rule that
holds for common networks (`layout.py` asks llama.cpp itself). Docs: docs/gpu.md. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import GgufHeader, Tensor
from server.bindings.gpu import Gpu
from server.bindings.kv_size import kv_by_layer
from server.bindings.placement import ALL_LAYERS, Placement, gpu_parts, homes
from server.device_needs import DeviceNeed, MemoryEstimate

CUDA_RUNTIME_BYTES = 600 << 20
"""Of each GPU that a process uses: its CUDA context, kernels and cuBLAS. An assumption: no card has been at hand."""

CUDA_HOST_BYTES = 500 << 20
"""Of the machine's memory, for CUDA's libraries. An assumption too."""

PROCESS_BYTES = 84 << 20
"""Of a worker before it has a model: interpreter, libraries, threads. Measured; see docs/decisions/0030-gpu.md."""

BYTES_PER_WORD = 480
"""Of the vocabulary: pieces and names of tokens here, tables of llama.cpp and of the grammar compiler. Measured."""

_FLOAT = 4
_ACTIVATIONS = 6
"""Vectors as wide as the network that are alive at a time, by token."""

_REPEATED = re.compile(r"blk\.(\d+)\.")
_INPUT = ("token_embd", "position_embd", "token_types", "token_embd_norm", "per_layer_token_embd")


def estimate_chat(
    header: GgufHeader,
    options: ContextOptions,
    placement: Placement,
    gpus: Sequence[Gpu],
    *,
    num_running: int | None = None,
) -> MemoryEstimate:
    """Estimate a chat model with a context of these sizes.

    Args:
        gpus: Those that its process will see, as they are now; what else is on them is not counted.
        num_running: Sequences that run at a time; default: all that have an id.
    """
    computing = _Computing.of(header, options, num_read=num_running or options.max_sequences)
    return _Layers(header, placement, gpus).estimate(kv_by_layer(header, options), computing)


def estimate_encoder(
    header: GgufHeader, *, call_tokens: int, placement: Placement, gpus: Sequence[Gpu]
) -> MemoryEstimate:
    """Estimate an embedding or rerank model that computes `call_tokens` at a time, of which it keeps nothing."""
    options = ContextOptions(
        num_cells=call_tokens,
        max_sequences=1,
        max_batch_tokens=call_tokens,
        max_ubatch_tokens=call_tokens,
        num_threads=1,
        flash_attention=placement.uses_gpu,
    )
    kv = kv_by_layer(header, options) if header.values.get(f"{header.architecture}.attention.causal", True) else []
    return _Layers(header, placement, gpus).estimate(kv, _Computing.of(header, options, num_read=call_tokens))


def most_gpu_layers(
    header: GgufHeader, options: ContextOptions, placement: Placement, gpus: Sequence[Gpu], *, headroom: float = 0.05
) -> int:
    """How many layers fit into what is free on the GPUs; `ALL_LAYERS` where all do.

    Args:
        headroom: Part of a GPU's memory that stays free: estimates err, and others use GPUs as well.
    """
    counts: list[int] = [ALL_LAYERS, *range(header.number("block_count"), 0, -1)]
    for count in counts:
        tried = Placement(gpu_layers=count, split=placement.split, tensor_split=placement.tensor_split)
        estimate = estimate_chat(header, options, tried, gpus)
        if all(estimate.of(gpu.device).total <= gpu.free_bytes - headroom * gpu.total_bytes for gpu in gpus):
            return count
    return 0


# ---- what a step needs


@dataclass(frozen=True)
class _Computing:
    """Bytes of a step's buffers.

    Attributes:
        hidden: Of the layers.
        logits: Of the output layer, reserved for every token of a micro-batch.
        read: Of logits that are read, which the machine's own memory holds.
        inputs: What the processor hands to GPUs for a step.
    """

    hidden: int
    logits: int
    read: int
    inputs: int

    @staticmethod
    def of(header: GgufHeader, options: ContextOptions, *, num_read: int) -> _Computing:
        tokens, cells = options.num_ubatch_tokens, options.num_reserved_cells
        if options.streams:
            cells //= options.max_sequences
        width, words = header.number("embedding_length"), _num_words(header)
        scores = 0 if options.flash_attention else header.number("attention.head_count") * cells
        mask = 2 * cells
        return _Computing(
            hidden=_FLOAT * tokens * (scores + mask + _ACTIVATIONS * width + _hidden_width(header)),
            logits=_FLOAT * tokens * (words + 2 * width),
            read=_FLOAT * num_read * words,
            inputs=_FLOAT * tokens * (mask + width),
        )


def _hidden_width(header: GgufHeader) -> int:
    """Numbers of a token between the two halves of a feed-forward layer."""
    experts = header.number("expert_used_count")
    dense = 3 * header.number("feed_forward_length")
    routed = experts * (2 * header.number("expert_feed_forward_length") + header.number("embedding_length"))
    return max(dense, routed)


def _num_words(header: GgufHeader) -> int:
    return header.array_lengths.get("tokenizer.ggml.tokens", header.number("vocab_size"))


# ---- by device


class _Layers:
    """A model's layers, and the devices that they are on."""

    def __init__(self, header: GgufHeader, placement: Placement, gpus: Sequence[Gpu]) -> None:
        self._header = header
        self._placement = placement
        self._gpus = gpus if placement.uses_gpu else ()
        free = [gpu.free_bytes for gpu in self._gpus]
        self._homes = homes(placement, num_layers=header.number("block_count"), free_bytes=free)
        self._used = sorted({home for home in self._homes if home is not None})

    def estimate(self, kv: Sequence[int], computing: _Computing) -> MemoryEstimate:
        """Add up what belongs to each device. `kv`: bytes by layer; none where nothing is kept."""
        kv = kv or [0] * (len(self._homes) - 1)
        gpu_needs = tuple(
            DeviceNeed(
                device=self._gpus[index].device,
                weights=self._weights(index),
                kv=sum(size for size, home in zip(kv, self._homes, strict=False) if home == index),
                compute=max(computing.hidden, computing.logits if self._homes[-1] == index else 0),
                runtime=CUDA_RUNTIME_BYTES,
            )
            for index in self._used
        )
        own = DeviceNeed(
            device="cpu",
            weights=self._weights(None),
            kv=sum(size for size, home in zip(kv, self._homes, strict=False) if home is None),
            compute=(computing.hidden if None in self._homes else computing.inputs) + 2 * computing.read,
            runtime=PROCESS_BYTES + BYTES_PER_WORD * _num_words(self._header) + (CUDA_HOST_BYTES if self._used else 0),
        )
        return MemoryEstimate(needs=(own, *gpu_needs), gpu_layers=sum(home is not None for home in self._homes))

    def _weights(self, device: int | None) -> int:
        if self._placement.split == "row" and len(self._used) > 1:
            return self._row_weights(device)
        return sum(tensor.size_bytes for tensor in self._header.tensors for home in self._of(tensor) if home == device)

    def _row_weights(self, device: int | None) -> int:
        """Of each matrix on GPUs, every GPU has its part of the rows."""
        if device is None:
            return sum(tensor.size_bytes for tensor in self._header.tensors if None in self._of(tensor))
        parts = gpu_parts(self._placement, [gpu.free_bytes for gpu in self._gpus])
        spread = sum(tensor.size_bytes for tensor in self._header.tensors if self._of(tensor) != [None])
        return round(spread * parts[device] / sum(parts))

    def _of(self, tensor: Tensor) -> list[int | None]:
        """Where a tensor is: the embeddings of a network that has no output matrix serve as one too."""
        if repeated := _REPEATED.match(tensor.name):
            return [self._homes[int(repeated[1])] if int(repeated[1]) < len(self._homes) else self._homes[-1]]
        if tensor.name.startswith(_INPUT):
            is_output = tensor.name == "token_embd.weight" and not self._header.has_tensor("output.weight")
            return list(dict.fromkeys([None, *([self._homes[-1]] if is_output else [])]))
        return [self._homes[-1]]
