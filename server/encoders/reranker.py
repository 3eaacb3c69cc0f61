"""Cross-encoders: query and document in, one relevance score out, from ONNX or from safetensors.

Scores are raw logits; turning them into 0..1 is the service's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from server.config.schema import KernelName, ModelConfig
from server.encoders.encoder import MAX_BATCH_TOKENS, EncodedItem, Pairs, Rows, TokenBudget, pad, usual_batch_tokens
from server.encoders.known_pairs import EXAMPLES
from server.encoders.onnx_weights import read_classifier
from server.encoders.tokenizer import PairTokenizer, choose_max_tokens, first_position, num_positions
from server.encoders.vocabulary import FastPairVocabulary
from server.errors import LoadFailed
from server.types import ModelFacts

if TYPE_CHECKING:
    import torch

    from server.encoders.torch_device import TorchFormat

ONNX_FILE = "model.onnx"

Network = Callable[[Sequence[EncodedItem]], npt.NDArray[np.float32]]
"""Items in, logits [num_items, num_labels] out."""


class Reranker:
    """An `Encoder` of (query, document) pairs.

    A pair's score does not depend on its neighbours (in fp32: up to rounding). A dynamically quantised network would
    break that, because it chooses its int8 scale from the whole batch: with the default model, company and padding
    shifted logits by up to 0.46. Such a network runs each pair alone, on the threads of `alone`; see
    docs/decisions/0005-int8-reranker-one-by-one.md.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        budget: TokenBudget,
        facts: ModelFacts,
        alone: ThreadPoolExecutor | None = None,
    ) -> None:
        self.facts = facts
        self.budget = budget
        self._network = network
        self._alone = alone
        self._tokenizer = PairTokenizer(
            FastPairVocabulary(tokenizer), model_id=config.id, max_tokens=facts.context_length
        )

    def tokenize(self, inputs: Pairs) -> list[EncodedItem]:
        return self._tokenizer.encode(inputs)

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        """Score items; float32 [num_items], raw logits."""
        if self._alone:
            logits = np.concatenate(list(self._alone.map(lambda item: self._network([item]), items)))
        else:
            logits = self._network(items)
        if logits.shape != (len(items), 1):
            raise LoadFailed(f"the model gives an output of shape {list(logits.shape)}; a reranker gives one per pair")
        return logits[:, 0]


def load_onnx_reranker(folder: Path, config: ModelConfig, *, num_threads: int, details: Mapping[str, str]) -> Reranker:
    """Load model.onnx and tokenizer.json.

    Args:
        details: What is to be told to people besides.

    Raises:
        LoadFailed: A file is missing; other exceptions mean broken files.
    """
    import onnxruntime

    tokenizer = _tokenizer_file(folder)
    pad_id = _pad_id(folder, tokenizer)
    options = onnxruntime.SessionOptions()
    path = folder / ONNX_FILE
    is_quantized = is_quantized_at_run_time(path)
    options.intra_op_num_threads = 1 if is_quantized else num_threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin would take the cores from the chat model's worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    input_names = [each.name for each in session.get_inputs()]

    def run(items: Sequence[EncodedItem]) -> npt.NDArray[np.float32]:
        features = pad(items, pad_id=pad_id)
        logits: npt.NDArray[np.float32] = session.run(None, {name: features[name] for name in input_names})[0]
        return logits

    facts = ModelFacts(
        context_length=_max_tokens(folder, config),
        architecture=next(iter(_read_json(folder / "config.json").get("architectures", [])), ""),
        details={
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "device": "cpu",
            "dtype": "int8" if is_quantized else "float32",
            "threads": str(num_threads),
            **details,
        },
    )
    # One thread a pair is faster than all threads for one pair after the other.
    alone = ThreadPoolExecutor(num_threads, thread_name_prefix="encoder-pair") if is_quantized else None
    budget = TokenBudget(MAX_BATCH_TOKENS, is_packed=alone is not None)
    return Reranker(run, tokenizer, config, budget=budget, facts=facts, alone=alone)


def is_quantized_at_run_time(path: Path) -> bool:
    """Whether an ONNX network chooses scales from what it is given, so that an input's result depends on company."""
    return b"DynamicQuantizeLinear" in path.read_bytes()


def load_torch_reranker(
    folder: Path,
    config: ModelConfig,
    *,
    kernel: KernelName,
    num_threads: int,
    batch_tokens: int | None = None,
    details: Mapping[str, str],
) -> Reranker:
    """Load a sequence classifier from safetensors, or else the weights of model.onnx; arguments and errors as above.

    `batch_tokens` is what is to be computed at a time; None: what is usual on the device.
    """
    import torch
    import transformers

    from server.encoders.packing import check_packing, pack_classifier
    from server.encoders.torch_device import TORCH_FORMATS, choose_device

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(num_threads)
    device, number_format = choose_device(config.device), TORCH_FORMATS[kernel]
    is_onnx = (folder / ONNX_FILE).is_file()
    classifier = (_from_onnx if is_onnx else _from_safetensors)(folder, number_format.weights)
    number_format.prepare(classifier.model.to(device).eval())
    if number_format.is_packed:
        pack_classifier(classifier.model)
    budget = TokenBudget(batch_tokens or usual_batch_tokens(device), is_packed=number_format.is_packed)
    facts = ModelFacts(
        context_length=_max_tokens(folder, config),
        num_parameters=sum(parameter.numel() for parameter in classifier.model.parameters()),
        architecture=type(classifier.model).__name__,
        details={
            "runtime": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "device": device,
            "dtype": str(number_format),
            "threads": str(num_threads),
            "batch_tokens": str(budget.max_tokens),
            **details,
        },
    )
    network = _torch_network(classifier, number_format, device)
    reranker = Reranker(network, classifier.tokenizer, config, budget=budget, facts=facts)
    if number_format.is_packed:
        query, documents = EXAMPLES[0][0], [document for _, document in EXAMPLES]
        check_packing(reranker.forward, reranker.tokenize(Pairs(query, documents, "end")))
    return reranker


@dataclass(frozen=True)
class _Classifier:
    """A network of torch's, on the CPU as it was loaded, and how it wants its inputs."""

    model: Any
    tokenizer: Tokenizer
    pad_id: int
    input_names: Sequence[str]


def _from_safetensors(folder: Path, dtype: torch.dtype) -> _Classifier:
    import transformers

    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(folder),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        dtype=dtype,
        output_loading_info=True,
    )
    _refuse_missing_weights(loading)
    own = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    return _Classifier(model, own.backend_tokenizer, own.pad_token_id or 0, own.model_input_names)


def _from_onnx(folder: Path, dtype: torch.dtype) -> _Classifier:
    """The network of model.onnx with its weights; int8 ones de-quantised, which is quicker than reading float32."""
    import torch
    import transformers

    weights = read_classifier(folder / ONNX_FILE)
    model, loading = transformers.BertForSequenceClassification.from_pretrained(
        None,
        config=transformers.BertConfig(**weights.shape),
        state_dict={name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()},
        dtype=dtype,
        output_loading_info=True,
    )
    _refuse_missing_weights(loading)
    tokenizer = _tokenizer_file(folder)
    input_names = ("input_ids", "token_type_ids", "attention_mask")
    return _Classifier(model, tokenizer, _pad_id(folder, tokenizer), input_names)


def _refuse_missing_weights(loading: Mapping[str, Any]) -> None:
    """transformers would fill them with random numbers."""
    if missing := sorted(loading["missing_keys"]):
        raise LoadFailed(f"the weights have no {', '.join(missing)}; they are no reranker's")


def _torch_network(classifier: _Classifier, number_format: TorchFormat, device: str) -> Network:
    from server.encoders.packing import pack
    from server.encoders.torch_device import send

    start = first_position(classifier.model.config.to_dict())

    def lay_out(items: Sequence[EncodedItem]) -> dict[str, Any]:
        if number_format.is_packed:
            return pack(items, classifier.input_names, device, first_position=start)
        padded = pad(items, pad_id=classifier.pad_id)
        return {name: send(padded[name], device) for name in classifier.input_names}

    def run(items: Sequence[EncodedItem]) -> npt.NDArray[np.float32]:
        inputs = lay_out(items)
        with number_format.computing(device):
            logits: npt.NDArray[np.float32] = classifier.model(**inputs).logits.float().cpu().numpy()
        return logits

    return run


def _tokenizer_file(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise LoadFailed(f"{folder} has no tokenizer.json")
    return Tokenizer.from_file(str(path))


def _max_tokens(folder: Path, config: ModelConfig) -> int:
    """The network's positions are the hard limit; the other files may state a lower one.

    transformers writes 1e30 for "no limit" into tokenizer_config.json.
    """
    possible = num_positions(_read_json(folder / "config.json"))
    stated = (
        _read_json(folder / "vectrix_config.json").get("max_length"),
        _read_json(folder / "tokenizer_config.json").get("model_max_length"),
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
