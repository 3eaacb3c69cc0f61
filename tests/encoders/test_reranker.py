"""The default reranker against the ONNX network run directly, and a torch reranker against transformers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.config.schema import ModelConfig
from server.encoders.batcher import Batcher, EncodeOutcome
from server.encoders.encoded import Encoded
from server.encoders.encoder import Encoder, Pairs, Rows
from server.encoders.known_pairs import EXAMPLES
from server.encoders.loading import load_encoder
from server.encoders.reranker import load_torch_reranker
from server.errors import LoadFailed

pytestmark = pytest.mark.integration

QUERY = "what is the capital of france"
DOCUMENTS = [
    "Berlin is the capital of Germany.",
    "Paris is the capital of France.",
    "Bananas are rich in potassium.",
    "Lyon is a city in France. " * 10,
    "The seat of government is called the capital. " * 30,
    "fr",
]

PASSING_SEED, FAILING_SEED = 214, 3
"""Random weights that happen to pass the self-test, and that happen not to."""


def rerank(reranker: Encoder[Any], documents: list[str]) -> Rows:
    """Score through a batcher, as one request."""
    future: Future[EncodeOutcome] = Future()
    batcher = Batcher(reranker)
    batcher.submit("r", Pairs(QUERY, documents, "end"), on_done=future.set_result)
    outcome = future.result(timeout=120)
    batcher.close()
    assert isinstance(outcome, Encoded), outcome
    return outcome.rows


def test_scores_equal_the_network_run_directly(
    reranker: Encoder[Any], encoder_weights: Callable[[str], tuple[ModelConfig, Path]]
) -> None:
    import onnxruntime
    from tokenizers import Tokenizer

    _, folder = encoder_weights("ms-marco-minilm-l12-v2")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    direct = []
    for encoding in (tokenizer.encode(QUERY, document) for document in DOCUMENTS):
        values = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        names = ("input_ids", "attention_mask", "token_type_ids")
        direct.append(session.run(None, {n: np.array([v]) for n, v in zip(names, values, strict=True)})[0][0, 0])

    scores = rerank(reranker, DOCUMENTS)

    np.testing.assert_allclose(scores, direct, atol=1e-4)
    assert scores.argmax() == 1


def test_company_does_not_change_a_score(reranker: Encoder[Any]) -> None:
    together = rerank(reranker, DOCUMENTS)

    np.testing.assert_allclose(rerank(reranker, DOCUMENTS[1:3]), together[1:3], atol=1e-4)


def test_long_documents_are_cut_to_the_models_limit(reranker: Encoder[Any]) -> None:
    [item] = reranker.tokenize(Pairs(QUERY, ["word " * 600], "end"))

    assert item.num_tokens == reranker.facts.context_length == 512
    assert rerank(reranker, ["word " * 600]).shape == (1,)


def save_tiny_classifier(folder: Path, *, seed: int, num_labels: int = 1, is_roberta: bool = False) -> None:
    """Write a random two-layer BERT or XLM-RoBERTa, its tokenizer and the vocabulary that the self-test needs."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator([QUERY, *DOCUMENTS, *(text for example in EXAMPLES for text in example)], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "xlm-roberta" if is_roberta else "bert",
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=0,
        type_vocab_size=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=num_labels,
        initializer_range=0.5,
    )
    AutoModelForSequenceClassification.from_config(config).eval().save_pretrained(folder)


def tiny_config() -> ModelConfig:
    return ModelConfig(id="tiny", kind="rerank", backend="sentence_transformers", source="file:tiny")


def test_torch_reranker_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    save_tiny_classifier(tmp_path, seed=PASSING_SEED)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    documents = DOCUMENTS[:3]
    inputs = tokenizer([QUERY] * 3, documents, padding=True, return_tensors="pt")

    scores = rerank(load_encoder(tiny_config(), tmp_path, num_threads=1), documents)

    np.testing.assert_allclose(scores, model(**inputs).logits[:, 0].detach().numpy(), atol=1e-5)


def test_a_pair_may_fill_a_model_that_counts_from_its_padding(tmp_path: Path) -> None:
    """RoBERTa's first token has the position behind that of padding, here 0: of 64 positions, 63 are for a text."""
    save_tiny_classifier(tmp_path, seed=0, is_roberta=True)

    reranker = load_torch_reranker(tmp_path, tiny_config(), kernel="torch-fp32", num_threads=1, details={})

    assert reranker.facts.context_length == 63
    assert np.isfinite(rerank(reranker, ["paris " * 100])).all()


@pytest.mark.parametrize("is_roberta", [False, True])
def test_packed_pairs_score_as_padded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_roberta: bool) -> None:
    """Of both ways in which a head takes the first token, and to count positions; in fp32, as a CPU computes well."""
    import torch

    from server.encoders.torch_device import TORCH_FORMATS, TorchFormat

    monkeypatch.setitem(TORCH_FORMATS, "torch-packed-fp16", TorchFormat(torch.float32, is_packed=True))
    save_tiny_classifier(tmp_path, seed=PASSING_SEED, is_roberta=is_roberta)
    packed = load_torch_reranker(tmp_path, tiny_config(), kernel="torch-packed-fp16", num_threads=1, details={})
    padded = load_torch_reranker(tmp_path, tiny_config(), kernel="torch-fp32", num_threads=1, details={})

    np.testing.assert_allclose(rerank(packed, DOCUMENTS), rerank(padded, DOCUMENTS), atol=1e-3)


def test_weights_that_rank_nonsense_are_refused(tmp_path: Path) -> None:
    save_tiny_classifier(tmp_path, seed=FAILING_SEED)

    with pytest.raises(LoadFailed, match="'tiny' cannot be loaded: the reranker failed its self-test"):
        load_encoder(tiny_config(), tmp_path, num_threads=1)


def test_a_classifier_with_several_labels_is_refused(tmp_path: Path) -> None:
    save_tiny_classifier(tmp_path, seed=PASSING_SEED, num_labels=3)

    with pytest.raises(LoadFailed, match=r"output of shape \[3, 3\]; a reranker gives one per pair"):
        load_encoder(tiny_config(), tmp_path, num_threads=1)


def test_weights_without_a_classifier_are_refused(tmp_path: Path) -> None:
    """transformers would invent the missing head and carry on."""
    from safetensors.torch import load_file, save_file

    save_tiny_classifier(tmp_path, seed=PASSING_SEED)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if "classifier" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )

    with pytest.raises(LoadFailed, match=r"have no classifier\.bias, classifier\.weight"):
        load_encoder(tiny_config(), tmp_path, num_threads=1)
