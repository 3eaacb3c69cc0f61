"""How much a network keeps of the tokens it has seen: cells of the KV cache, states of recurrent layers.

Computed from a GGUF header as llama.cpp does when it makes a context; networks that it treats in ways of their own are
what `layout.py` is for. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import BLOCKS, GgufHeader
from server.config.schema import KvType

_KV_TYPES: dict[KvType, int] = {"f16": 1, "q8_0": 8, "q4_0": 2}
_FLOAT = 4

_STATEFUL = ("ssm.conv_kernel", "ssm.state_size", "wkv.head_size", "shortconv.l_cache", "kda.head_dim")
"""Keys of networks that keep one state for each sequence."""


@dataclass(frozen=True)
class NetworkShape:
    """What the sizes of a context depend on, as `LlamaModel` tells it of a loaded model."""

    context_length: int
    has_window: bool
    can_share_prefixes: bool


def shape_of(header: GgufHeader) -> NetworkShape:
    return NetworkShape(
        context_length=header.number("context_length"),
        has_window=header.number("attention.sliding_window") > 0,
        can_share_prefixes=not any(f"{header.architecture}.{key}" in header.values for key in _STATEFUL),
    )


def kv_by_layer(header: GgufHeader, options: ContextOptions) -> list[int]:
    """Bytes of the cache that belong to each layer: cells of those that attend, states of those that recur."""
    num_cells, heads = options.num_reserved_cells, header.by_layer("attention.head_count_kv", _heads(header))
    state = _state_bytes(header) * options.max_sequences
    attends = _attending(header, heads)
    return [
        num_cells * _cell_bytes(header, count, options.kv_type) if attending else state
        for count, attending in zip(heads, attends, strict=True)
    ]


def _attending(header: GgufHeader, kv_heads: Sequence[int]) -> list[bool]:
    interval = header.number("full_attention_interval", 1) or 1
    last_own = len(kv_heads) - header.number("attention.shared_kv_layers")  # later ones read the cells of earlier ones
    return [count > 0 and (il + 1) % interval == 0 and il < last_own for il, count in enumerate(kv_heads)]


def _cell_bytes(header: GgufHeader, kv_heads: int, kv_type: KvType) -> int:
    if rank := header.number("attention.kv_lora_rank"):  # keys and values are kept as one short vector
        return _stored(rank + header.number("rope.dimension_count"), kv_type)
    key = header.number("attention.key_length", _head_width(header))
    value = header.number("attention.value_length", _head_width(header))
    return _stored(kv_heads * key, kv_type) + _stored(kv_heads * value, kv_type)


def _stored(count: int, kv_type: KvType) -> int:
    numbers, size = BLOCKS[_KV_TYPES[kv_type]]
    return count * size // numbers


def _state_bytes(header: GgufHeader) -> int:
    """Of one sequence in one recurrent layer: what its convolution looks back at, and its state."""
    width, inner = header.number("embedding_length"), header.number("ssm.inner_size")
    if head := header.number("wkv.head_size"):
        return _FLOAT * width * (header.number("token_shift_count", 2) + head)
    if kernel := header.number("shortconv.l_cache"):
        return _FLOAT * width * (kernel - 1)
    state, groups = header.number("ssm.state_size"), header.number("ssm.group_count")
    convolution = max(0, header.number("ssm.conv_kernel") - 1) * (inner + 2 * groups * state)
    return _FLOAT * (convolution + state * inner)


def _heads(header: GgufHeader) -> int:
    return header.number("attention.head_count")


def _head_width(header: GgufHeader) -> int:
    return header.number("embedding_length") // max(1, _heads(header))
