"""GGUF embedding models: text in, one vector out, several texts packed into one native call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.bindings.llama_encoder import LlamaEncoder, pooling_of
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.encoders.encoder import EncodedItem, Rows, Texts, TokenBudget
from server.encoders.gguf_model import facts_of, max_tokens_of, open_gguf
from server.encoders.gguf_vocabulary import GgufTextVocabulary
from server.encoders.tokenizer import TextTokenizer
from server.errors import LoadFailed
from server.types import ModelFacts, Token


class GgufEmbedder:
    """An `Encoder` of texts. Vectors are fp32, as the model pools them; they do not depend on a batch's other texts."""

    def __init__(self, model: LlamaModel, network: LlamaEncoder, config: ModelConfig, *, facts: ModelFacts) -> None:
        """Take over `model` and `network`, which live as long as the process."""
        vocabulary = GgufTextVocabulary(model.vocab)
        self.facts = msgspec.structs.replace(
            facts,
            prompts=config.prompts,  # GGUF files hold none
            special_token_ids=vocabulary.special.ids_around_a_text,
        )
        self.budget = TokenBudget(network.batch_tokens, is_packed=True)
        self._model = model
        self._network = network
        self._tokenizer = TextTokenizer(vocabulary, model_id=config.id, max_tokens=network.max_tokens)

    @property
    def num_operations(self) -> int:
        return self._network.num_operations

    def tokenize(self, inputs: Texts) -> list[EncodedItem]:
        return self._tokenizer.encode(inputs)

    def spell(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[Token]]:
        return self._tokenizer.spell(texts, add_special_tokens=add_special_tokens)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Embed items; float32 [num_items, dimensions], as the model pools them."""
        return self._network.encode([item.token_ids for item in items])


def load_gguf_embedder(
    path: Path, config: ModelConfig, *, num_threads: int, portable_kernels: bool = False
) -> GgufEmbedder:
    """Load a GGUF embedding model; it pools as its file says.

    Raises:
        LoadFailed: The file cannot be loaded, or is not one of an embedding model.
    """
    model = open_gguf(path, config, portable_kernels=portable_kernels)
    pooling = pooling_of(model)
    if pooling is None:
        raise LoadFailed(
            f"{path.name} does not say how to make one vector of a text ({model.architecture}.pooling_type is missing "
            "or none); take a conversion of the whole sentence-transformers folder, or a model made for embeddings"
        )
    if pooling == "rank":
        raise LoadFailed(f"{path.name} is a reranker; set kind: rerank")
    max_tokens = max_tokens_of(model, config)
    network = LlamaEncoder(model, readout=pooling, max_tokens=max_tokens, num_threads=num_threads)
    facts = facts_of(model, network, dimensions=network.row_length, pooling=pooling)
    return GgufEmbedder(model, network, config, facts=facts)
