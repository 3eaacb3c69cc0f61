"""Embedding and rerank models of random weights, as folders that sentence-transformers loads.

    python -m benchmarks.synthetic_encoders bge-m3 weights/bge-m3

Weights are safetensors in half precision; the tokenizer splits at spaces and knows the words of `prompts.py`. Hearth
serves the embedding models; rerankers it refuses, since they rank nonsense: those are for computing without a server.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from server.loadgen.prompts import WORDS

Pooling = Literal["mean", "cls", "lasttoken"]


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """An architecture of transformers with its sizes.

    Attributes:
        model_type: As transformers calls it.
        sizes: What its configuration takes.
        pooling: How an embedding model makes one vector of many; None: a reranker.
        max_tokens: Longest input.
    """

    name: str
    model_type: str
    sizes: Mapping[str, int]
    pooling: Pooling | None
    max_tokens: int


_BERT = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
_LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_XLM_VOCABULARY = {"vocab_size": 250_002, "max_position_embeddings": 8194, "type_vocab_size": 1}
_QWEN3 = {
    **{"num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 3072, "vocab_size": 151_669},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 32_768},
}
_TINY = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}

SHAPES = {
    each.name: each
    for each in (
        EncoderShape(
            name="minilm", model_type="bert", sizes=_BERT | {"vocab_size": 30_522}, pooling="mean", max_tokens=512
        ),
        EncoderShape(
            name="bge-m3", model_type="xlm-roberta", sizes=_LARGE | _XLM_VOCABULARY, pooling="cls", max_tokens=8192
        ),
        EncoderShape(
            name="qwen3-embedding-0.6b", model_type="qwen3", sizes=_QWEN3, pooling="lasttoken", max_tokens=32_768
        ),
        EncoderShape(
            name="bge-reranker-v2-m3", model_type="xlm-roberta", sizes=_LARGE | _XLM_VOCABULARY, pooling=None,
            max_tokens=8192,
        ),
        EncoderShape(
            name="tiny", model_type="bert", sizes=_TINY | {"vocab_size": 1024}, pooling="mean", max_tokens=512
        ),
        EncoderShape(
            name="tiny-reranker", model_type="bert", sizes=_TINY | {"vocab_size": 1024}, pooling=None, max_tokens=512
        ),
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_synthetic_encoder(arguments.folder, SHAPES[arguments.shape])


def write_synthetic_encoder(folder: Path, shape: EncoderShape, *, seed: int = 0) -> None:
    """Write a folder; the same weights for the same seed. One that is there already is left as it is."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    labels = {} if shape.pooling else {"num_labels": 1}
    config = AutoConfig.for_model(shape.model_type, **shape.sizes, **special, **labels)
    torch.manual_seed(seed)
    make: Callable[..., Any] = (AutoModel if shape.pooling else AutoModelForSequenceClassification).from_config
    make(config).half().save_pretrained(folder, safe_serialization=True)
    _write_tokenizer(folder, shape)
    if shape.pooling:
        _write_modules(folder, shape, shape.pooling)


def _write_tokenizer(folder: Path, shape: EncoderShape) -> None:
    """Words at spaces; special tokens around a text and between those of a pair, in the ways of BERT and RoBERTa."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*special, *dict.fromkeys(WORDS), *".,?!"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = ("$A </s>", "$A </s> $B </s>") if shape.model_type == "qwen3" else _around(shape)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_tokens,
        "padding_side": "left" if shape.pooling == "lasttoken" else "right",
        **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        **{"cls_token": "<s>", "sep_token": "</s>"},
    }
    if shape.model_type == "xlm-roberta":
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _around(shape: EncoderShape) -> tuple[str, str]:
    if shape.model_type == "bert":
        return "<s> $A </s>", "<s> $A </s> $B:1 </s>:1"
    return "<s> $A </s>", "<s> $A </s> </s> $B </s>"


def _write_modules(folder: Path, shape: EncoderShape, pooling: Pooling) -> None:
    """What sentence-transformers reads beside the network."""
    package = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": shape.max_tokens}))
    flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    modes = {f"pooling_mode_{flag}": name == pooling for name, flag in flags.items()}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    settings = {"word_embedding_dimension": shape.sizes["hidden_size"], **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
