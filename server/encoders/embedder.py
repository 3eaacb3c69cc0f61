"""Sentence-transformers models: text in, one vector out.

Takes weights, modules and forward pass from sentence-transformers; batching and tokenising are ours, because
`encode` sorts and batches within one call only and truncates in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers.utils import logging as transformers_logging

from server.config.schema import KernelName, ModelConfig
from server.encoders.encoder import EncodedItem, Rows, Texts, TokenBudget, pad, usual_batch_tokens
from server.encoders.packing import check_packing, pack, pack_network
from server.encoders.tokenizer import TextTokenizer, choose_max_tokens, first_position, num_positions
from server.encoders.torch_device import TORCH_FORMATS, choose_device, send
from server.encoders.vocabulary import FastTextVocabulary
from server.errors import LoadFailed
from server.types import ModelFacts, Token

_PROBE = "The quick brown fox jumps over the lazy dog; it's 10 o'clock, Zürich."


class Embedder:
    """An `Encoder` of texts. Vectors are fp32, as the model pools them: who wants them of norm 1 scales them."""

    def __init__(
        self,
        model: SentenceTransformer,
        config: ModelConfig,
        *,
        kernel: KernelName,
        num_threads: int,
        batch_tokens: int,
        details: Mapping[str, str],
    ) -> None:
        hf_config = model[0].config
        positions = num_positions(hf_config.to_dict())
        max_tokens = choose_max_tokens(config.context, own=model.max_seq_length, possible=positions)
        prompts = {**model.prompts, **config.prompts}
        # Put before inputs unless their request says otherwise, as `encode` does.
        self._default_prompt = prompts.get(model.default_prompt_name, "")
        if any(prompts.values()) and not all(getattr(module, "include_prompt", True) for module in model):
            raise LoadFailed("the model leaves prompts out of its pooling, which is not served yet")
        self._model = model
        self._device = model.device.type
        self._format = TORCH_FORMATS[kernel]
        self.budget = TokenBudget(batch_tokens, is_packed=self._format.is_packed)
        self._first_position = first_position(hf_config.to_dict())
        vocabulary = FastTextVocabulary(model.tokenizer.backend_tokenizer)
        self._tokenizer = TextTokenizer(
            vocabulary, model_id=config.id, max_tokens=max_tokens, default_prompt=self._default_prompt
        )
        self._pad_id: int = model.tokenizer.pad_token_id or 0
        self._pad_side = model.tokenizer.padding_side
        self._tensor_names, self._constants = self._probe_features()
        self.facts = ModelFacts(
            context_length=max_tokens,
            dimensions=self.forward(self.tokenize(Texts([_PROBE], "end"))).shape[1],
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            architecture=(hf_config.architectures or [""])[0],
            prompts=prompts,
            special_token_ids=vocabulary.special.ids_around_a_text,
            details={
                "runtime": f"torch {torch.__version__}, sentence-transformers {sentence_transformers.__version__}",
                "device": str(model.device),
                "dtype": str(self._format),
                "threads": str(num_threads),
                "batch_tokens": str(batch_tokens),
                "pooling": _pooling_of(model),
                **details,
            },
        )

    def tokenize(self, inputs: Texts) -> list[EncodedItem]:
        return self._tokenizer.encode(inputs)

    def spell(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[Token]]:
        return self._tokenizer.spell(texts, add_special_tokens=add_special_tokens)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Embed items; float32 [num_items, dimensions], as the model pools them."""
        features = self._lay_out(items)
        with self._format.computing(self._device):
            rows: Rows = self._model({**features, **self._constants})["sentence_embedding"].float().cpu().numpy()
        return rows

    def _lay_out(self, items: Sequence[EncodedItem]) -> dict[str, Any]:
        if self._format.is_packed:
            return pack(items, self._tensor_names, self._device, first_position=self._first_position)
        padded = pad(items, pad_id=self._pad_id, side=self._pad_side)
        return {name: send(padded[name], self._device) for name in self._tensor_names}

    def _probe_features(self) -> tuple[list[str], dict[str, Any]]:
        """Ask the model itself how it prepares a text: the tensors that it wants, and constants besides them.

        Raises:
            LoadFailed: It wants something that `pad` does not make, or would see other tokens than ours.
        """
        features = self._model.preprocess([_PROBE], prompt=self._default_prompt or None)
        tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
        ours = pad(self.tokenize(Texts([_PROBE], "end")))
        if unknown := tensors.keys() - ours.keys():
            raise LoadFailed(f"the model needs inputs that are not served yet: {', '.join(sorted(unknown))}")
        if any(tensors[name].tolist() != ours[name].tolist() for name in tensors):
            raise LoadFailed("the model prepares texts in a way that is not served yet (its own template or tokens)")
        return list(tensors), {name: value for name, value in features.items() if name not in tensors}


def _pooling_of(model: SentenceTransformer) -> str:
    modes = next((module.pooling_mode for module in model if hasattr(module, "pooling_mode")), "unknown")
    return modes if isinstance(modes, str) else "+".join(modes)


def load_embedder(
    folder: Path,
    config: ModelConfig,
    *,
    kernel: KernelName,
    num_threads: int,
    batch_tokens: int | None = None,
    details: Mapping[str, str],
) -> Embedder:
    """Load a sentence-transformers folder. No code from the folder runs and nothing is fetched.

    Args:
        kernel: One of `TORCH_FORMATS`.
        batch_tokens: What is to be computed at a time; None: what is usual on the device.
        details: What is to be told to people besides.

    Raises:
        LoadFailed: The folder or the device is not what the configuration says; other exceptions mean broken files.
    """
    if not (folder / "modules.json").is_file():
        raise LoadFailed(f"{folder} has no modules.json, so it is not a sentence-transformers model")
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(num_threads)
    device, number_format = choose_device(config.device), TORCH_FORMATS[kernel]
    model = SentenceTransformer(
        str(folder),
        device=device,
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": number_format.weights},
    )
    while isinstance(model[-1], Normalize):
        model.pop(-1)  # whether vectors are to have norm 1 is for each request to say
    if not getattr(model.tokenizer, "is_fast", False):
        raise LoadFailed("the model has no fast tokenizer; add its tokenizer.json")
    number_format.prepare(model.eval())
    if number_format.is_packed:
        pack_network(model[0].auto_model)
    embedder = Embedder(
        model,
        config,
        kernel=kernel,
        num_threads=num_threads,
        batch_tokens=batch_tokens or usual_batch_tokens(device),
        details=details,
    )
    if number_format.is_packed:
        check_packing(embedder.forward, embedder.tokenize(Texts([_PROBE, _PROBE[:20], _PROBE[20:]], "end")))
    return embedder
