"""GGUF rerankers: query and document in, one relevance score out.

Two kinds: a network with a classification head (bge-reranker-v2-m3, jina-reranker, Qwen3-Reranker as llama.cpp
converts it now), and Qwen3-Reranker as an ordinary chat model whose next token would be "yes" or "no". Scores are raw
logits; turning them into 0..1 is the service's business. Whether they mean anything, `known_pairs.py` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from server.bindings.gguf_header import read_header
from server.bindings.llama_encoder import LlamaEncoder
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.encoders.encoder import EncodedItem, Pairs, Rows, TokenBudget
from server.encoders.gguf_model import facts_of, max_tokens_of, open_gguf
from server.encoders.gguf_vocabulary import GgufPairVocabulary, GgufPromptVocabulary
from server.encoders.tokenizer import PairTokenizer
from server.encoders.vocabulary import PairVocabulary
from server.errors import LoadFailed
from server.types import ModelFacts, TokenIds

Scoring = Callable[[Rows], Rows]
"""From the network's rows [num_items, row_length] to raw logits [num_items]."""

_QWEN3 = ("qwen3", "qwen3vl")  # llama.cpp applies the softmax to the head of these

_QWEN3_PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""As its authors give it, and as llama.cpp writes it into the files that it converts."""


class GgufReranker:
    """An `Encoder` of pairs of query and document. A score does not depend on a batch's other pairs."""

    def __init__(
        self,
        model: LlamaModel,
        network: LlamaEncoder,
        scoring: Scoring,
        vocabulary: PairVocabulary,
        config: ModelConfig,
        *,
        facts: ModelFacts,
    ) -> None:
        """Take over `model` and `network`, which live as long as the process."""
        self.facts = facts
        self.budget = TokenBudget(network.batch_tokens, is_packed=True)
        self._model = model
        self._network = network
        self._scoring = scoring
        self._tokenizer = PairTokenizer(vocabulary, model_id=config.id, max_tokens=network.max_tokens)

    @property
    def num_operations(self) -> int:
        return self._network.num_operations

    def tokenize(self, inputs: Pairs) -> list[EncodedItem]:
        return self._tokenizer.encode(inputs)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Score items; float32 [num_items], raw logits."""
        return self._scoring(self._network.encode([item.token_ids for item in items]))


def load_gguf_reranker(
    path: Path, config: ModelConfig, *, num_threads: int, portable_kernels: bool = False
) -> GgufReranker:
    """Load a GGUF reranker.

    Raises:
        LoadFailed: The file cannot be loaded, is not one of a reranker, or is one of a model that llama.cpp cannot
            compute faithfully.
    """
    model = open_gguf(path, config, portable_kernels=portable_kernels)
    _refuse_bert(path, model)
    max_tokens = max_tokens_of(model, config)
    if read_header(path).has_tensor("cls.weight", "cls.output.weight"):
        network = LlamaEncoder(model, readout="rank", max_tokens=max_tokens, num_threads=num_threads)
        scoring, method = _scoring_of_head(path, model), "classification head"
    else:
        network = LlamaEncoder(model, readout=_answers(path, model), max_tokens=max_tokens, num_threads=num_threads)
        scoring, method = _difference, "yes and no logits"
    prompt = model.metadata("tokenizer.chat_template.rerank") or (_QWEN3_PROMPT if model.architecture in _QWEN3 else "")
    vocabulary = GgufPromptVocabulary(model.vocab, prompt) if prompt else GgufPairVocabulary(model.vocab)
    facts = facts_of(model, network, scores=method)
    return GgufReranker(model, network, scoring, vocabulary, config, facts=facts)


def _refuse_bert(path: Path, model: LlamaModel) -> None:
    if model.architecture in {"bert", "nomic-bert"} and model.vocab.is_wordpiece:
        raise LoadFailed(
            f"{path.name} is a BERT cross-encoder, which GGUF cannot hold: the conversion drops its pooler layer, and "
            "llama.cpp does not tell the document from the query (all token types are 0), so scores would be wrong; "
            "serve its ONNX or safetensors weights with backend: sentence_transformers"
        )


def _scoring_of_head(path: Path, model: LlamaModel) -> Scoring:
    if model.architecture in _QWEN3 and sorted(model.labels) == ["no", "yes"]:
        return _log_ratio if model.labels[0] == "yes" else lambda rows: -_log_ratio(rows)
    if len(model.labels) != 1:
        raise LoadFailed(f"{path.name} gives {len(model.labels)} scores per pair; a reranker gives one")
    has_output_layer = read_header(path).has_tensor("cls.output.weight")
    return _single if has_output_layer or model.architecture == "modern-bert" else _inverse_tanh


def _answers(path: Path, model: LlamaModel) -> TokenIds:
    """The tokens of the two answers."""
    answers = [model.vocab.tokenize(answer, parse_special=False) for answer in ("yes", "no")]
    if model.architecture not in _QWEN3 or any(len(answer) != 1 for answer in answers):
        raise LoadFailed(
            f"{path.name} has no classification head and is not a Qwen3-Reranker; take a conversion that keeps the "
            "head, or a model made for reranking"
        )
    return [answer[0] for answer in answers]


def _single(rows: Rows) -> Rows:
    return rows[:, 0]


def _difference(rows: Rows) -> Rows:
    """The logits of yes and no; its sigmoid is their softmax."""
    return rows[:, 0] - rows[:, 1]


def _log_ratio(rows: Rows) -> Rows:
    """Undo the softmax over yes and no."""
    logarithms: Rows = np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    return _difference(logarithms)


def _inverse_tanh(rows: Rows) -> Rows:
    """llama.cpp applies the tanh of a hidden layer to a head of one layer (jina-reranker-v1), too."""
    limit = 1 - np.finfo(np.float32).epsneg
    return np.arctanh(np.clip(_single(rows), -limit, limit))
