"""Sentence-transformers models: text in, one unit vector out.

Takes weights, modules and forward pass from sentence-transformers; batching and tokenising are ours, because
`encode` sorts and batches within one call only and truncates in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from server.config.schema import ModelConfig
from server.encoders.encoder import EncodedItem, Rows, pad
from server.encoders.tokenizer import TextTokenizer, choose_max_tokens
from server.encoders.torch_device import choose_device
from server.errors import LoadFailed
from server.types import ModelFacts

_PROBE = "The quick brown fox jumps over the lazy dog; it's 10 o'clock, Zürich."


class Embedder:
    """An `Encoder` of texts. Vectors are fp32, of L2 norm 1."""

    def __init__(self, model: SentenceTransformer, config: ModelConfig, *, num_threads: int) -> None:
        hf_config = model[0].config
        max_tokens = choose_max_tokens(
            config.context, own=model.max_seq_length, possible=getattr(hf_config, "max_position_embeddings", None)
        )
        # `encode` would put the default prompt, where a model names one, before every text.
        self._prompt: str = model.prompts.get(model.default_prompt_name) or ""
        self._model = model
        self._tokenizer = TextTokenizer(model.tokenizer.backend_tokenizer, model_id=config.id, max_tokens=max_tokens)
        self._pad_id: int = model.tokenizer.pad_token_id or 0
        self._pad_side = model.tokenizer.padding_side
        self._tensor_names, self._constants = self._probe_features()
        self.facts = ModelFacts(
            context_length=max_tokens,
            dimensions=self.forward(self.tokenize([_PROBE], truncate=True)).shape[1],
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            architecture=(hf_config.architectures or [""])[0],
            details={
                "runtime": f"torch {torch.__version__}, sentence-transformers {sentence_transformers.__version__}",
                "device": str(model.device),
                "dtype": "float32",
                "threads": str(num_threads),
            },
        )

    def tokenize(self, inputs: Sequence[str], *, truncate: bool) -> list[EncodedItem]:
        return self._tokenizer.encode([self._prompt + text for text in inputs], truncate=truncate)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Embed items; float32 [num_items, dimensions], each row of L2 norm 1."""
        padded = pad(items, pad_id=self._pad_id, side=self._pad_side)
        features: dict[str, Any] = {
            name: torch.from_numpy(padded[name]).to(self._model.device) for name in self._tensor_names
        }
        with torch.inference_mode():
            vectors = self._model({**features, **self._constants})["sentence_embedding"]
            rows: Rows = torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
        return rows

    def _probe_features(self) -> tuple[list[str], dict[str, Any]]:
        """Ask the model itself how it prepares a text: the tensors that it wants, and constants besides them.

        Raises:
            LoadFailed: It wants something that `pad` does not make, or would see other tokens than ours.
        """
        features = self._model.preprocess([_PROBE], prompt=self._prompt or None)
        tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
        ours = pad(self.tokenize([_PROBE], truncate=True))
        if unknown := tensors.keys() - ours.keys():
            raise LoadFailed(f"the model needs inputs that are not served yet: {', '.join(sorted(unknown))}")
        if any(tensors[name].tolist() != ours[name].tolist() for name in tensors):
            raise LoadFailed("the model prepares texts in a way that is not served yet (its own template or tokens)")
        return list(tensors), {name: value for name, value in features.items() if name not in tensors}


def load_embedder(folder: Path, config: ModelConfig, *, num_threads: int) -> Embedder:
    """Load a sentence-transformers folder in fp32. No code from the folder runs and nothing is fetched.

    Raises:
        LoadFailed: The folder or the device is not what the configuration says; other exceptions mean broken files.
    """
    if not (folder / "modules.json").is_file():
        raise LoadFailed(f"{folder} has no modules.json, so it is not a sentence-transformers model")
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(num_threads)
    model = SentenceTransformer(
        str(folder),
        device=choose_device(config.device),
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )
    if not getattr(model.tokenizer, "is_fast", False):
        raise LoadFailed("the model has no fast tokenizer; add its tokenizer.json")
    return Embedder(model.eval(), config, num_threads=num_threads)
