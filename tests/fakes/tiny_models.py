"""GGUF models of random weights, under a megabyte, for the kinds of memory that llama.cpp has besides plain attention.

Greedy answers of theirs wander through the vocabulary, depend on all of the prompt, and mean nothing. Text is bytes:
token 3 + b is byte b.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.fakes.gguf_file import Value, write_gguf

NUM_TOKENS = 3 + 256
WINDOW = 32
"""Tokens that a windowed layer sees."""

_SPECIAL = ("<unk>", "<s>", "</s>")
_WIDTH, _HIDDEN, _HEADS, _KV_HEADS, _CONTEXT = 64, 128, 4, 2, 4096
_INNER, _STATE, _SSM_HEADS, _CONV = 2 * _WIDTH, 16, 4, 4

Tensors = dict[str, npt.NDArray[np.float32]]

_RECURRENT_KEYS: dict[str, Value] = {
    "ssm.conv_kernel": _CONV,
    "ssm.inner_size": _INNER,
    "ssm.state_size": _STATE,
    "ssm.time_step_rank": _SSM_HEADS,
    "ssm.group_count": 1,
}
_ATTENTION_KEYS: dict[str, Value] = {
    "feed_forward_length": _HIDDEN,
    "attention.head_count": _HEADS,
    "attention.head_count_kv": _KV_HEADS,
    "rope.dimension_count": _WIDTH // _HEADS,
}
_RMS: dict[str, Value] = {"attention.layer_norm_rms_epsilon": 1e-5}


def write_recurrent(path: Path) -> None:
    """Mamba 2: one state per sequence, no cells."""
    make = _Weights()
    layers = [make.recurrent(n) for n in range(2)]
    _write(path, "mamba2", {"block_count": 2, **_RMS, **_RECURRENT_KEYS}, make.ends() | _joined(layers))


def write_speaking(path: Path, template: str, controls: Sequence[str]) -> None:
    """A recurrent one that has a chat template, and behind the bytes the control tokens that it is written with."""
    more = [text for text in controls if text not in _SPECIAL]
    make = _Weights(NUM_TOKENS + len(more))
    values: dict[str, Value] = {"tokenizer.chat_template": template}
    keys = {"block_count": 1, **_RMS, **_RECURRENT_KEYS}
    _write(path, "mamba2", keys, make.ends() | make.recurrent(0), more, values)


def write_hybrid(path: Path) -> None:
    """Granite hybrid: recurrent layers and, where there are KV heads, attention."""
    kv_heads = [0, _KV_HEADS, 0]
    keys = _RMS | _RECURRENT_KEYS | _ATTENTION_KEYS | {"block_count": 3, "attention.head_count_kv": kv_heads}
    make = _Weights()
    layers = [make.recurrent(0), make.attention(1), make.recurrent(2)]
    layers += [make.feed_forward(n) | {f"blk.{n}.ffn_norm.weight": make.ones(_WIDTH)} for n in range(3)]
    _write(path, "granitehybrid", keys, make.ends() | _joined(layers))


def write_windowed(path: Path) -> None:
    """Cohere 2: three layers that see the last `WINDOW` tokens, then one that sees all."""
    keys = _ATTENTION_KEYS | {
        "block_count": 4,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.sliding_window": WINDOW,
        "logit_scale": 4.0,
    }
    make = _Weights()
    layers = [part for n in range(4) for part in (make.attention(n), make.feed_forward(n))]
    ends = make.ends()
    del ends["output.weight"]  # its output is always the embedding's matrix
    _write(path, "cohere2", keys, ends | _joined(layers))


class _Weights:
    """Random tensors by name, of the same seed every time; shapes are numpy's: the inputs last."""

    def __init__(self, num_tokens: int = NUM_TOKENS) -> None:
        self._random = np.random.default_rng(0)
        self._num_tokens = num_tokens

    def matrix(self, outputs: int, inputs: int, *, gain: float = 1.0) -> npt.NDArray[np.float32]:
        return self._random.normal(0, gain / inputs**0.5, (outputs, inputs)).astype(np.float32)

    def ones(self, *shape: int) -> npt.NDArray[np.float32]:
        return np.ones(shape, np.float32)

    def ends(self) -> Tensors:
        return {
            "token_embd.weight": self.matrix(self._num_tokens, _WIDTH),
            "output_norm.weight": self.ones(_WIDTH),
            "output.weight": self.matrix(self._num_tokens, _WIDTH, gain=4),
        }

    def attention(self, n: int) -> Tensors:
        kv_width = _WIDTH // _HEADS * _KV_HEADS
        return {
            f"blk.{n}.attn_norm.weight": self.ones(_WIDTH),
            f"blk.{n}.attn_q.weight": self.matrix(_WIDTH, _WIDTH, gain=2),
            f"blk.{n}.attn_k.weight": self.matrix(kv_width, _WIDTH, gain=2),
            f"blk.{n}.attn_v.weight": self.matrix(kv_width, _WIDTH, gain=2),
            f"blk.{n}.attn_output.weight": self.matrix(_WIDTH, _WIDTH, gain=2),
        }

    def feed_forward(self, n: int) -> Tensors:
        return {
            f"blk.{n}.ffn_gate.weight": self.matrix(_HIDDEN, _WIDTH),
            f"blk.{n}.ffn_up.weight": self.matrix(_HIDDEN, _WIDTH),
            f"blk.{n}.ffn_down.weight": self.matrix(_WIDTH, _HIDDEN, gain=2),
        }

    def recurrent(self, n: int) -> Tensors:
        conv_width = _INNER + 2 * _STATE
        return {
            f"blk.{n}.attn_norm.weight": self.ones(_WIDTH),
            f"blk.{n}.ssm_in.weight": self.matrix(_INNER + conv_width + _SSM_HEADS, _WIDTH),
            f"blk.{n}.ssm_conv1d.weight": self.matrix(conv_width, _CONV),
            f"blk.{n}.ssm_conv1d.bias": np.zeros(conv_width, np.float32),
            # The state fades by exp(a * softplus(dt)) a token: the heads remember between five and hundreds of tokens.
            f"blk.{n}.ssm_dt.bias": np.linspace(-5, -1, _SSM_HEADS, dtype=np.float32),
            f"blk.{n}.ssm_a": np.full((_SSM_HEADS, 1), -0.5, np.float32),
            f"blk.{n}.ssm_d": self.ones(_SSM_HEADS, 1),
            f"blk.{n}.ssm_norm.weight": self.ones(1, _INNER),
            f"blk.{n}.ssm_out.weight": self.matrix(_WIDTH, _INNER, gain=2),
        }


def _joined(layers: list[Tensors]) -> Tensors:
    return {name: weights for layer in layers for name, weights in layer.items()}


def _write(
    path: Path,
    architecture: str,
    keys: dict[str, Value],
    tensors: Tensors,
    controls: Sequence[str] = (),
    more: dict[str, Value] | None = None,
) -> None:
    values: dict[str, Value] = {
        "general.architecture": architecture,
        **{f"{architecture}.{key}": value for key, value in keys.items()},
        f"{architecture}.context_length": _CONTEXT,
        f"{architecture}.embedding_length": _WIDTH,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *controls],
        "tokenizer.ggml.scores": [0.0] * (NUM_TOKENS + len(controls)),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[3] * len(controls)],  # unknown, control, byte
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **(more or {}),
    }
    write_gguf(path, values, tensors)
