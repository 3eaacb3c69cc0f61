"""Write a llama model of random weights, under a megabyte: enough to run every kernel that the self-test is after.

Its weights cover the quantisations that AMX and repacking treat specially. It has no vocabulary and says nothing sane.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

NUM_TOKENS = 256

_WIDTH, _HIDDEN, _HEADS, _ALIGNMENT = 256, 512, 4, 32

_KIND_U32, _KIND_F32, _KIND_STRING = 4, 6, 8

# name -> (ggml's number, weights per block, half-float scales per block, other bytes per block)
_QUANTISED = {
    "Q4_0": (2, 32, 1, 16),
    "Q4_1": (3, 32, 2, 16),
    "Q8_0": (8, 32, 1, 32),
    "Q4_K": (12, 256, 2, 140),
}

# name, (inputs, outputs), type
_TENSORS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("token_embd.weight", (_WIDTH, NUM_TOKENS), "Q8_0"),  # also the output matrix
    ("output_norm.weight", (_WIDTH,), "F32"),
    ("blk.0.attn_norm.weight", (_WIDTH,), "F32"),
    ("blk.0.attn_q.weight", (_WIDTH, _WIDTH), "Q4_0"),
    ("blk.0.attn_k.weight", (_WIDTH, _WIDTH), "Q4_1"),
    ("blk.0.attn_v.weight", (_WIDTH, _WIDTH), "Q8_0"),
    ("blk.0.attn_output.weight", (_WIDTH, _WIDTH), "Q4_K"),
    ("blk.0.ffn_norm.weight", (_WIDTH,), "F32"),
    ("blk.0.ffn_gate.weight", (_WIDTH, _HIDDEN), "Q4_0"),
    ("blk.0.ffn_up.weight", (_WIDTH, _HIDDEN), "Q4_1"),
    ("blk.0.ffn_down.weight", (_HIDDEN, _WIDTH), "Q4_K"),
)


def write_tiny_gguf(path: Path) -> None:
    """Write the model; the same bytes every time."""
    rng = random.Random(0)  # noqa: S311 (weights, not secrets)
    values = (
        _text("general.architecture", "llama"),
        _u32("llama.context_length", 512),
        _u32("llama.embedding_length", _WIDTH),
        _u32("llama.feed_forward_length", _HIDDEN),
        _u32("llama.block_count", 1),
        _u32("llama.attention.head_count", _HEADS),
        _u32("llama.rope.dimension_count", _WIDTH // _HEADS),
        _u32("llama.vocab_size", NUM_TOKENS),
        _string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", _KIND_F32, 1e-5),
        _text("tokenizer.ggml.model", "no_vocab"),
    )
    infos, data = b"", b""
    for name, shape, kind in _TENSORS:
        number, weights = _weights(shape, kind, rng)
        infos += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, len(data))
        data += _padded(weights)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(_TENSORS), len(values))
    path.write_bytes(_padded(header + b"".join(values) + infos) + data)


def _weights(shape: tuple[int, ...], kind: str, rng: random.Random) -> tuple[int, bytes]:
    if kind == "F32":
        return 0, struct.pack("<f", 1.0) * shape[0]
    number, block, num_scales, num_other = _QUANTISED[kind]
    num_blocks = shape[0] * shape[1] // block
    # Random bytes could make a scale infinite or NaN, so scales are written.
    scales = struct.pack("<e", 0.01) * num_scales
    return number, b"".join(scales + rng.randbytes(num_other) for _ in range(num_blocks))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _text(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", _KIND_STRING) + _string(value)


def _u32(key: str, value: int) -> bytes:
    return _string(key) + struct.pack("<II", _KIND_U32, value)
