"""GGUF files of random weights in the shape of real models: what they compute is as slow, and needs no download.

    python -m benchmarks.synthetic_gguf qwen3-8b Q4_K_M weights/qwen3-8b.gguf

Blocks are random where a model's are, with scales such that activations neither vanish nor overflow. The vocabulary has
the real size: bytes, the words of `prompts.py` as one token each, and made-up words that only answers contain.
"""

from __future__ import annotations

import argparse
import itertools
import math
import string
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import gguf
import numpy as np
import numpy.typing as npt

from benchmarks.model_shapes import F32, Q4_K, Q6_K, Q8_0, SHAPES, ModelShape, Quantisation, tensors_of
from server.bindings.gguf_header import BLOCKS, Tensor
from server.loadgen.prompts import WORDS

Bytes = npt.NDArray[np.uint8]

_POOL_BYTES = 8 << 20
"""Random bytes that all tensors of a type are made of: 18 GB of them would take minutes, and nothing depends on it."""

_OUTPUT_GAIN = 4.0
"""Spread of the logits: as peaked as those of a model that knows something, so that sampling has as much to do."""

_NORMAL, _CONTROL = 1, 3
_SPACE = "Ġ"

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("quantisation", choices=get_args(Quantisation))
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    write_synthetic_gguf(arguments.path, SHAPES[arguments.shape], arguments.quantisation)


def write_synthetic_gguf(path: Path, shape: ModelShape, quantisation: Quantisation, *, seed: int = 0) -> None:
    """Write a model, whole or not at all; the same bytes for the same seed."""
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(part, shape.architecture)
    try:
        _write(writer, shape, quantisation, np.random.default_rng(seed))
    finally:
        writer.close()
    part.replace(path)


def _write(writer: gguf.GGUFWriter, shape: ModelShape, quantisation: Quantisation, random: np.random.Generator) -> None:
    _add_values(writer, shape)
    _add_vocabulary(writer, shape)
    tensors = list(tensors_of(shape, quantisation))
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType(tensor.kind)
        rows = tuple(reversed(tensor.shape[1:]))
        weights, size = BLOCKS[tensor.kind]
        row_bytes = tensor.shape[0] // weights * size
        dtype = np.dtype(np.float32) if tensor.kind == F32 else np.dtype(np.uint8)
        sizes = (*rows, tensor.shape[0] if tensor.kind == F32 else row_bytes)
        writer.add_tensor_info(tensor.name, sizes, dtype, tensor.size_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    pools = {kind: random.integers(0, 256, _POOL_BYTES, np.uint8) for kind in (Q8_0, Q4_K, Q6_K)}
    for tensor in tensors:
        writer.write_tensor_data(_weights(tensor, pools, random))


def _weights(tensor: Tensor, pools: dict[int, Bytes], random: np.random.Generator) -> npt.NDArray[np.generic]:
    if len(tensor.shape) == 1:
        return np.ones(tensor.shape, np.float32)  # of a norm
    gain = _OUTPUT_GAIN if tensor.name in {"output.weight", "token_embd.weight"} else 1.0
    spread = gain / math.sqrt(tensor.shape[0])
    if tensor.kind == F32:  # a router
        return random.normal(0, spread, tensor.shape[::-1]).astype(np.float32)
    return random_blocks(tensor.kind, tensor.size_bytes, spread, pools[tensor.kind])


def random_blocks(kind: int, size_bytes: int, spread: float, pool: Bytes) -> Bytes:
    """Blocks of a quantised type whose weights have mean 0 and standard deviation `spread`."""
    block_bytes = BLOCKS[kind][1]
    usable = len(pool) // block_bytes * block_bytes
    blocks = pool[: min(usable, size_bytes)].reshape(-1, block_bytes).copy()
    _SCALING[kind](blocks, spread)
    return np.resize(blocks.reshape(-1), size_bytes)


def _scale_q8_0(blocks: Bytes, spread: float) -> None:
    """d, then 32 bytes: d * q, with q from -128 to 127."""
    blocks[:, :2] = _half(spread / 73.9)


def _scale_q4_k(blocks: Bytes, spread: float) -> None:
    """d, dmin, eight scales and minima of 6 bits, 128 bytes: d * scale * q - dmin * minimum, with q from 0 to 15."""
    scale = spread / 4.61 / 32
    blocks[:, :2], blocks[:, 2:4] = _half(scale), _half(7.5 * scale)
    blocks[:, 4:12], blocks[:, 12:16] = 0b10_100000, 0  # each scale and minimum is 32


def _scale_q6_k(blocks: Bytes, spread: float) -> None:
    """192 bytes, 16 scales, d: d * scale * (q - 32), with q from 0 to 63."""
    blocks[:, 192:208] = 8
    blocks[:, 208:210] = _half(spread / 18.5 / 8)


_SCALING = {Q8_0: _scale_q8_0, Q4_K: _scale_q4_k, Q6_K: _scale_q6_k}


def _half(value: float) -> Bytes:
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


# ---- metadata


def _add_values(writer: gguf.GGUFWriter, shape: ModelShape) -> None:
    writer.add_name(f"random weights in the shape of {shape.name}")
    for key, value in shape.values().items():
        if key == "general.architecture":
            continue  # the writer has added it
        if isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, shape: ModelShape) -> None:
    tokens, merges = vocabulary(shape.vocab_size)
    first_control = len(tokens) - len(_CONTROLS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([_NORMAL] * first_control + [_CONTROL] * len(_CONTROLS))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(first_control)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHATML)


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE; the control tokens come last."""
    tokens = list(_byte_names())
    merges: list[str] = []
    for word in dict.fromkeys(WORDS):
        for end in range(1, len(word) + 1):  # a merge begins with the space before a word, so no two rival each other
            start, letter = _SPACE + word[: end - 1], word[end - 1]
            if start + letter not in tokens:
                tokens.append(start + letter)
                merges.append(f"{start} {letter}")
    known = set(tokens)
    made_up = (f"{_SPACE}{''.join(letters)}" for letters in itertools.product(string.ascii_lowercase, repeat=4))
    room = size - len(tokens) - len(_CONTROLS)
    assert room >= 0, f"a vocabulary of {size} has no room for the words of the prompts"
    tokens += itertools.islice((each for each in made_up if each not in known), room)
    return [*tokens, *_CONTROLS], merges


def _byte_names() -> Iterator[str]:
    """What GPT-2's tokenizer writes for each byte: itself where it can be seen, else a letter from 256 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    for byte in range(256):
        yield chr(byte) if byte in seen else chr(next(others))


if __name__ == "__main__":
    main()
