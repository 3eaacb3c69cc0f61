"""Shapes of real models, and the tensors that GGUF files of them have, quantised as llama.cpp quantises them.

Only sizes: what a model of a shape takes of memory and time does not depend on what its weights say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from server.bindings.gguf_header import GgufHeader, Tensor, Value

Quantisation = Literal["Q4_K_M", "Q8_0"]

F32, Q8_0, Q4_K, Q6_K = 0, 8, 12, 14
"""ggml's numbers of its types."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder of Llama's or Qwen3's kind.

    Attributes:
        hidden: Width between the halves of a feed-forward layer; with experts, of each.
        is_tied: Whether the embeddings are the output matrix too.
        tokenizer: What llama.cpp knows the splitting of text into words as.
    """

    name: str
    architecture: Literal["llama", "qwen3", "qwen3moe"]
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    hidden: int
    vocab_size: int
    context_length: int
    rope_base: float
    epsilon: float
    tokenizer: Literal["qwen2", "llama-bpe"] = "qwen2"
    is_tied: bool = False
    num_experts: int = 0
    num_experts_used: int = 0

    def values(self) -> dict[str, Value]:
        """GGUF's metadata of the network, without the vocabulary."""
        common: dict[str, Value] = {
            "block_count": self.num_layers,
            "context_length": self.context_length,
            "embedding_length": self.width,
            "feed_forward_length": self.hidden,
            "attention.head_count": self.num_heads,
            "attention.head_count_kv": self.num_kv_heads,
            "attention.key_length": self.head_width,
            "attention.value_length": self.head_width,
            "attention.layer_norm_rms_epsilon": self.epsilon,
            "rope.freq_base": self.rope_base,
        }
        if self.architecture == "llama":
            common["rope.dimension_count"] = self.head_width
        if self.num_experts:
            common |= {
                "expert_count": self.num_experts,
                "expert_used_count": self.num_experts_used,
                "expert_feed_forward_length": self.hidden,
            }
        return {"general.architecture": self.architecture} | {f"{self.architecture}.{k}": v for k, v in common.items()}

    def header(self, quantisation: Quantisation) -> GgufHeader:
        """What a file of this shape would say, for estimates without a file."""
        lengths = {"tokenizer.ggml.tokens": self.vocab_size}
        return GgufHeader(self.values(), lengths, tuple(tensors_of(self, quantisation)))


def tensors_of(shape: ModelShape, quantisation: Quantisation) -> Iterator[Tensor]:
    """The tensors of a file, in its order; shapes have the inputs first."""
    matrix = Q4_K if quantisation == "Q4_K_M" else Q8_0
    better = Q6_K if quantisation == "Q4_K_M" else Q8_0
    yield Tensor("token_embd.weight", (shape.width, shape.vocab_size), better if shape.is_tied else matrix)
    for layer in range(shape.num_layers):
        kinds = _Kinds(matrix, better if _gets_more_bits(layer, shape.num_layers) else matrix)
        yield from _attention(shape, f"blk.{layer}", kinds)
        yield from (_experts if shape.num_experts else _dense)(shape, f"blk.{layer}", kinds)
    yield Tensor("output_norm.weight", (shape.width,), F32)
    if not shape.is_tied:
        yield Tensor("output.weight", (shape.width, shape.vocab_size), better)


def bytes_per_token(shape: ModelShape, quantisation: Quantisation) -> float:
    """Weights that a token of one sequence has to read: all but the embeddings, and of experts those it is sent to."""
    total = 0.0
    for tensor in tensors_of(shape, quantisation):
        if tensor.name == "token_embd.weight" and not shape.is_tied:
            continue
        share = shape.num_experts_used / shape.num_experts if "_exps" in tensor.name else 1.0
        total += share * tensor.size_bytes
    return total


@dataclass(frozen=True)
class _Kinds:
    """Types of a layer's matrices: of most, and of those that llama.cpp gives more bits in some layers."""

    usual: int
    delicate: int


def _gets_more_bits(layer: int, num_layers: int) -> bool:
    """llama.cpp's rule for Q4_K_M: the first and last eighth of the layers, and every third between them."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _attention(shape: ModelShape, name: str, kinds: _Kinds) -> Iterator[Tensor]:
    queries, keys = shape.num_heads * shape.head_width, shape.num_kv_heads * shape.head_width
    yield Tensor(f"{name}.attn_norm.weight", (shape.width,), F32)
    yield Tensor(f"{name}.attn_q.weight", (shape.width, queries), kinds.usual)
    yield Tensor(f"{name}.attn_k.weight", (shape.width, keys), kinds.usual)
    yield Tensor(f"{name}.attn_v.weight", (shape.width, keys), kinds.delicate)
    yield Tensor(f"{name}.attn_output.weight", (queries, shape.width), kinds.usual)
    if shape.architecture != "llama":
        yield Tensor(f"{name}.attn_q_norm.weight", (shape.head_width,), F32)
        yield Tensor(f"{name}.attn_k_norm.weight", (shape.head_width,), F32)
    yield Tensor(f"{name}.ffn_norm.weight", (shape.width,), F32)


def _dense(shape: ModelShape, name: str, kinds: _Kinds) -> Iterator[Tensor]:
    yield Tensor(f"{name}.ffn_gate.weight", (shape.width, shape.hidden), kinds.usual)
    yield Tensor(f"{name}.ffn_up.weight", (shape.width, shape.hidden), kinds.usual)
    yield Tensor(f"{name}.ffn_down.weight", (shape.hidden, shape.width), kinds.delicate)


def _experts(shape: ModelShape, name: str, kinds: _Kinds) -> Iterator[Tensor]:
    count = shape.num_experts
    yield Tensor(f"{name}.ffn_gate_inp.weight", (shape.width, count), F32)
    yield Tensor(f"{name}.ffn_gate_exps.weight", (shape.width, shape.hidden, count), kinds.usual)
    yield Tensor(f"{name}.ffn_up_exps.weight", (shape.width, shape.hidden, count), kinds.usual)
    yield Tensor(f"{name}.ffn_down_exps.weight", (shape.hidden, shape.width, count), kinds.delicate)


QWEN3_0_6B = ModelShape(
    name="qwen3-0.6b", architecture="qwen3", num_layers=28, width=1024, num_heads=16, num_kv_heads=8, head_width=128,
    hidden=3072, vocab_size=151_936, context_length=40_960, rope_base=1e6, epsilon=1e-6, is_tied=True,
)  # fmt: skip
QWEN3_8B = ModelShape(
    name="qwen3-8b", architecture="qwen3", num_layers=36, width=4096, num_heads=32, num_kv_heads=8, head_width=128,
    hidden=12_288, vocab_size=151_936, context_length=40_960, rope_base=1e6, epsilon=1e-6,
)  # fmt: skip
QWEN3_30B_A3B = ModelShape(
    name="qwen3-30b-a3b", architecture="qwen3moe", num_layers=48, width=2048, num_heads=32, num_kv_heads=4,
    head_width=128, hidden=768, vocab_size=151_936, context_length=40_960, rope_base=1e6, epsilon=1e-6,
    num_experts=128, num_experts_used=8,
)  # fmt: skip
LLAMA3_8B = ModelShape(
    name="llama-3-8b", architecture="llama", num_layers=32, width=4096, num_heads=32, num_kv_heads=8, head_width=128,
    hidden=14_336, vocab_size=128_256, context_length=8192, rope_base=5e5, epsilon=1e-5, tokenizer="llama-bpe",
)  # fmt: skip

TINY = ModelShape(
    name="tiny", architecture="qwen3", num_layers=2, width=256, num_heads=4, num_kv_heads=2, head_width=64,
    hidden=512, vocab_size=2048, context_length=4096, rope_base=1e6, epsilon=1e-6,
)  # fmt: skip
TINY_EXPERTS = ModelShape(
    name="tiny-experts", architecture="qwen3moe", num_layers=2, width=256, num_heads=4, num_kv_heads=2, head_width=64,
    hidden=256, vocab_size=2048, context_length=4096, rope_base=1e6, epsilon=1e-6, num_experts=8, num_experts_used=2,
)  # fmt: skip

SHAPES = {each.name: each for each in (QWEN3_0_6B, QWEN3_8B, QWEN3_30B_A3B, LLAMA3_8B, TINY, TINY_EXPERTS)}
