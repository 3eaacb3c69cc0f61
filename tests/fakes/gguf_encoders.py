"""GGUF encoders: all-MiniLM-L6-v2 converted from its safetensors, and rerankers of random weights under a megabyte.

What llama.cpp's own converter would write, as far as llama.cpp reads it; that converter is not installed with it.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from tests.fakes.gguf_file import Value, write_gguf

_CONTROL, _NORMAL, _UNKNOWN, _BYTE = 3, 1, 2, 6  # token types

_WIDTH, _HIDDEN, _HEADS, _LAYERS = 64, 128, 4, 2

Array = npt.NDArray[np.float32]
Tensors = dict[str, Array]


# ---- a real embedding model

_MINILM_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def write_minilm(path: Path, folder: Path, *, pooling: int = 1) -> None:
    """Convert a BERT embedding model in fp32. Pooling: 0 none, 1 mean, 2 first token."""
    config = json.loads((folder / "config.json").read_text())
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    keys: dict[str, Value] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_epsilon": float(config["layer_norm_eps"]),
        "attention.causal": False,
        "pooling_type": pooling,
    }
    tensors = load_file(folder / "model.safetensors")
    renamed = {_minilm_name(name): tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}
    write_gguf(path, _values("bert", keys) | _wordpiece(words), {n: t for n, t in renamed.items() if n})


def _minilm_name(name: str) -> str:
    """GGUF's name of a tensor; empty for the pooler, which embeddings do without."""
    name, _, suffix = name.rpartition(".")
    if name.startswith("encoder.layer."):
        _, _, number, rest = name.split(".", 3)
        return f"blk.{number}.{_MINILM_NAMES[rest]}.{suffix}"
    return f"{_MINILM_NAMES[name]}.{suffix}" if name in _MINILM_NAMES else ""


def _wordpiece(words: list[str]) -> dict[str, Value]:
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    is_control = [word in specials or word.startswith("[unused") for word in words]
    tokens = [
        word if control else word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"
        for word, control in zip(words, is_control, strict=True)
    ]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if control else _NORMAL for control in is_control],
        "tokenizer.ggml.unknown_token_id": words.index("[UNK]"),
        "tokenizer.ggml.bos_token_id": words.index("[CLS]"),
        "tokenizer.ggml.eos_token_id": words.index("[SEP]"),
        "tokenizer.ggml.seperator_token_id": words.index("[SEP]"),
        "tokenizer.ggml.padding_token_id": words.index("[PAD]"),
    }


# ---- rerankers of random weights


def write_xlm_roberta_reranker(path: Path, *, seed: int = 0, num_labels: int = 1, has_head: bool = True) -> None:
    """Two layers and the head of bge-reranker-v2-m3; text is characters."""
    letters = ["\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters]
    vocabulary: dict[str, Value] = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.token_type_count": 1,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, 0.0, *[-1.0] * len(letters)],
        "tokenizer.ggml.token_type": [_CONTROL, _CONTROL, _CONTROL, _UNKNOWN, *[_NORMAL] * len(letters)],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_space_prefix": True,
        **{f"tokenizer.ggml.add_{name}_token": True for name in ("bos", "eos", "sep")},
    }
    make = _Weights(seed)
    tensors = make.bert(len(tokens), num_types=1)
    if has_head:
        tensors |= make.linear("cls", _WIDTH, _WIDTH) | make.linear("cls.output", num_labels, _WIDTH)
    keys: dict[str, Value] = {"classifier.output_labels": [f"LABEL_{n}" for n in range(num_labels)]}
    write_gguf(path, _values("bert", _BERT_KEYS | keys) | vocabulary, tensors)


def write_bert_reranker(path: Path) -> None:
    """A BERT cross-encoder as the converter leaves it: no pooler, and a head that llama.cpp reads."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *(f"##{c}" for c in "abcdef")]
    make = _Weights(0)
    tensors = make.bert(len(words), num_types=2) | make.linear("cls.output", 1, _WIDTH)
    keys: dict[str, Value] = {"classifier.output_labels": ["LABEL_0"]}
    write_gguf(path, _values("bert", _BERT_KEYS | keys) | _wordpiece(words), tensors)


QWEN3_TEMPLATE = (
    '<|im_start|>system\nThe answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
)


def write_qwen3_reranker(path: Path, *, seed: int = 0, has_head: bool, has_answers: bool = True) -> None:
    """Two layers; text is bytes besides the control tokens and the two answers.

    With a head, as llama.cpp converts Qwen3-Reranker: the rows of "yes" and "no" are a classifier. Without, as older
    conversions have it: a chat model. Both give the same scores.
    """
    controls = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    answers = ["ye", "yes", "no"] if has_answers else []  # letters are joined two at a time
    tokens = ["<unk>", *controls, *answers, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [_UNKNOWN, *[_CONTROL] * 4, *[_NORMAL] * len(answers), *[_BYTE] * 256],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template.rerank": QWEN3_TEMPLATE,
    }
    keys: dict[str, Value] = {
        "block_count": _LAYERS,
        "context_length": 2048,
        "embedding_length": _WIDTH,
        "feed_forward_length": _HIDDEN,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _HEADS // 2,
        "attention.key_length": _WIDTH // _HEADS,
        "attention.value_length": _WIDTH // _HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": _WIDTH // _HEADS,
        "rope.freq_base": 10000.0,
    }
    tensors = _Weights(seed).qwen3(len(tokens))
    if has_head:
        keys |= {"pooling_type": 4, "classifier.output_labels": ["yes", "no"]}
        rows = [tokens.index("yes"), tokens.index("no")]
        tensors["cls.output.weight"] = tensors["token_embd.weight"][rows]
    write_gguf(path, _values("qwen3", keys) | vocabulary, tensors)


_BERT_KEYS: dict[str, Value] = {
    "block_count": _LAYERS,
    "context_length": 256,
    "embedding_length": _WIDTH,
    "feed_forward_length": _HIDDEN,
    "attention.head_count": _HEADS,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.causal": False,
}


def _values(architecture: str, keys: dict[str, Value]) -> dict[str, Value]:
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


class _Weights:
    """Random tensors by name; shapes are numpy's: the inputs last."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, outputs: int, inputs: int, *, gain: float = 2.0) -> Array:
        return self._random.normal(0, gain / inputs**0.5, (outputs, inputs)).astype(np.float32)

    def linear(self, name: str, outputs: int, inputs: int) -> Tensors:
        return {f"{name}.weight": self.matrix(outputs, inputs), f"{name}.bias": np.zeros(outputs, np.float32)}

    def norm(self, name: str) -> Tensors:
        return {f"{name}.weight": np.ones(_WIDTH, np.float32), f"{name}.bias": np.zeros(_WIDTH, np.float32)}

    def bert(self, num_tokens: int, *, num_types: int) -> Tensors:
        tensors = {
            "token_embd.weight": self.matrix(num_tokens, _WIDTH),
            "position_embd.weight": self.matrix(256, _WIDTH),
            "token_types.weight": self.matrix(num_types, _WIDTH),
            **self.norm("token_embd_norm"),
        }
        for layer in (f"blk.{n}" for n in range(_LAYERS)):
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                tensors |= self.linear(f"{layer}.{name}", _WIDTH, _WIDTH)
            tensors |= self.linear(f"{layer}.ffn_up", _HIDDEN, _WIDTH) | self.linear(
                f"{layer}.ffn_down", _WIDTH, _HIDDEN
            )
            tensors |= self.norm(f"{layer}.attn_output_norm") | self.norm(f"{layer}.layer_output_norm")
        return tensors

    def qwen3(self, num_tokens: int) -> Tensors:
        tensors = {
            "token_embd.weight": self.matrix(num_tokens, _WIDTH, gain=4),  # also the output matrix
            "output_norm.weight": np.ones(_WIDTH, np.float32),
        }
        kv_width, head_width = _WIDTH // 2, _WIDTH // _HEADS
        for layer in (f"blk.{n}" for n in range(_LAYERS)):
            tensors |= {
                f"{layer}.attn_norm.weight": np.ones(_WIDTH, np.float32),
                f"{layer}.attn_q.weight": self.matrix(_WIDTH, _WIDTH),
                f"{layer}.attn_k.weight": self.matrix(kv_width, _WIDTH),
                f"{layer}.attn_v.weight": self.matrix(kv_width, _WIDTH),
                f"{layer}.attn_output.weight": self.matrix(_WIDTH, _WIDTH),
                f"{layer}.attn_q_norm.weight": np.ones(head_width, np.float32),
                f"{layer}.attn_k_norm.weight": np.ones(head_width, np.float32),
                f"{layer}.ffn_norm.weight": np.ones(_WIDTH, np.float32),
                f"{layer}.ffn_gate.weight": self.matrix(_HIDDEN, _WIDTH),
                f"{layer}.ffn_up.weight": self.matrix(_HIDDEN, _WIDTH),
                f"{layer}.ffn_down.weight": self.matrix(_WIDTH, _HIDDEN),
            }
        return tensors
