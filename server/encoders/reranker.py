"""Cross-encoders: query and document in, one relevance score out, from ONNX or from safetensors.

Scores are raw logits; turning them into 0..1 is the service's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from server.config.schema import ModelConfig
from server.encoders.encoder import EncodedItem, Features, Rows, pad
from server.encoders.tokenizer import Pair, PairTokenizer, choose_max_tokens
from server.errors import LoadFailed
from server.types import ModelFacts

Network = Callable[[Features], npt.NDArray[np.float32]]
"""Padded features in, logits [num_items, num_labels] out."""

_SELF_TEST_QUERY = "what is the capital of france?"
_SELF_TEST_RELEVANT = "Paris is the capital and largest city of France."
_SELF_TEST_IRRELEVANT = "Bananas grow in the tropics and are rich in potassium."


class Reranker:
    """An `Encoder` of (query, document) pairs.

    A pair's score does not depend on its neighbours (in fp32: up to rounding). A dynamically quantised network would
    break that, because it chooses its int8 scale from the whole batch: with the default model, company and padding
    shifted logits by up to 0.46. `one_by_one` runs such a network pair by pair; what that costs is measured in
    docs/decisions/0005-int8-reranker-one-by-one.md.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        pad_id: int,
        facts: ModelFacts,
        one_by_one: bool = False,
    ) -> None:
        self.facts = facts
        self._network = network
        self._one_by_one = one_by_one
        self._tokenizer = PairTokenizer(tokenizer, model_id=config.id, max_tokens=facts.context_length)
        self._pad_id = pad_id
        self._self_test()

    def tokenize(self, inputs: Sequence[Pair], *, truncate: bool) -> list[EncodedItem]:
        return self._tokenizer.encode(inputs, truncate=truncate)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Score items; float32 [num_items], raw logits."""
        batches = [[item] for item in items] if self._one_by_one else [items]
        logits = np.concatenate([self._network(pad(batch, pad_id=self._pad_id)) for batch in batches])
        if logits.shape != (len(items), 1):
            raise LoadFailed(f"the model gives an output of shape {list(logits.shape)}; a reranker gives one per pair")
        return logits[:, 0]

    def _self_test(self) -> None:
        """Refuse weights that were converted wrongly: they load, answer, and rank nonsense."""
        pairs = [(_SELF_TEST_QUERY, _SELF_TEST_RELEVANT), (_SELF_TEST_QUERY, _SELF_TEST_IRRELEVANT)]
        relevant, irrelevant = self.forward(self.tokenize(pairs, truncate=False)).tolist()
        if not relevant > irrelevant:
            raise LoadFailed(
                f"the reranker failed its self-test: an irrelevant document scored {irrelevant:.3f}, a relevant one "
                f"{relevant:.3f}; the weights are damaged or not those of a reranker"
            )


def load_onnx_reranker(folder: Path, config: ModelConfig, *, num_threads: int) -> Reranker:
    """Load model.onnx and tokenizer.json.

    Raises:
        LoadFailed: The self-test fails or a file is missing; other exceptions mean broken files.
    """
    import onnxruntime

    if not (folder / "tokenizer.json").is_file():
        raise LoadFailed(f"{folder} has no tokenizer.json")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin would take the cores from the chat model's worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = folder / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    is_quantized = b"DynamicQuantizeLinear" in path.read_bytes()
    input_names = [each.name for each in session.get_inputs()]

    def run(features: Features) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(None, {name: features[name] for name in input_names})[0]
        return logits

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    facts = ModelFacts(
        context_length=_max_tokens(folder, config),
        architecture=next(iter(_read_json(folder / "config.json").get("architectures", [])), ""),
        details={
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "device": "cpu",
            "dtype": "int8" if is_quantized else "float32",
            "threads": str(num_threads),
        },
    )
    return Reranker(run, tokenizer, config, pad_id=_pad_id(folder, tokenizer), facts=facts, one_by_one=is_quantized)


def load_torch_reranker(folder: Path, config: ModelConfig, *, num_threads: int) -> Reranker:
    """Load a sequence classifier from safetensors in fp32. Errors as in `load_onnx_reranker`."""
    import torch
    import transformers

    from server.encoders.torch_device import choose_device

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(num_threads)
    device = choose_device(config.device)
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(folder),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        raise LoadFailed(f"the weights have no {', '.join(sorted(loading['missing_keys']))}; they are no reranker's")
    model.to(device).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)

    def run(features: Features) -> npt.NDArray[np.float32]:
        wanted = {name: features[name] for name in tokenizer.model_input_names}
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(array).to(device) for name, array in wanted.items()})
        logits: npt.NDArray[np.float32] = output.logits.float().cpu().numpy()
        return logits

    facts = ModelFacts(
        context_length=_max_tokens(folder, config),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        architecture=type(model).__name__,
        details={
            "runtime": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "device": device,
            "dtype": "float32",
            "threads": str(num_threads),
        },
    )
    return Reranker(run, tokenizer.backend_tokenizer, config, pad_id=tokenizer.pad_token_id or 0, facts=facts)


def _max_tokens(folder: Path, config: ModelConfig) -> int:
    """`max_position_embeddings` is the hard limit; the other files may state a lower one.

    transformers writes 1e30 for "no limit" into tokenizer_config.json.
    """
    possible = _read_json(folder / "config.json").get("max_position_embeddings")
    stated = (
        _read_json(folder / "vectrix_config.json").get("max_length"),
        _read_json(folder / "tokenizer_config.json").get("model_max_length"),
        possible,
    )
    own = min((int(limit) for limit in stated if limit is not None and limit < 1e9), default=None)
    return choose_max_tokens(config.context, own=own, possible=possible or own)


def _pad_id(folder: Path, tokenizer: Tokenizer) -> int:
    pad_token = _read_json(folder / "tokenizer_config.json").get("pad_token", "[PAD]")
    content = pad_token["content"] if isinstance(pad_token, dict) else pad_token
    return tokenizer.token_to_id(content) or 0


def _read_json(path: Path) -> dict[str, Any]:
    """The file's content; nothing when there is no such file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
