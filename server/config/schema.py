"""What models.yaml may say: the server's settings, one entry per model, and `rag`, as frozen pydantic models.

Field descriptions are the documentation: the JSON Schema for editors and `docs/configuration.md` are made from them.
Reading files, environment and flags is `load.py`'s business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from server.config.rag_section import NO_MODEL, RagModel, RagSettings
from server.config.script_section import ScriptRule
from server.config.section import ModelAlias, ModelId, Section, error_at
from server.config.server_section import ServerSettings
from server.config.weights_source import SOURCE_FORMS, Source
from server.types import ModelKind

Backend = Literal["llama_cpp", "sentence_transformers", "script"]
KvType = Literal["f16", "q8_0", "q4_0"]
KernelName = Literal[
    "torch-fp32", "torch-mixed-bf16", "torch-bf16", "torch-fp16", "torch-packed-fp16", "torch-packed-bf16", "onnx"
]
ToolFormatName = Literal[
    "hermes",
    "qwen_xml",
    "llama3",
    "mistral",
    "mistral_list",
    "gemma",
    "function_gemma",
    "deepseek",
    "deepseek_r1",
    "harmony",
]
ReasoningFormatName = Literal["think", "mistral", "gemma"]
Split = Literal["none", "layer", "row"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")]
Capability = Literal["chat", "completion", "embedding", "rerank", "tools", "code", "reasoning"]

_WEIGHTS = ("source", "sha256", "context", "threads")
_CACHE = ("cache_mb", "cache_file")
_GPU = ("gpu_layers", "device", "split", "tensor_split")
KEYS_IN_USE: dict[tuple[Backend, ModelKind], tuple[str, ...]] = {
    ("llama_cpp", "chat"): (
        *(*_WEIGHTS, *_GPU, "max_sequences", "kv_cells"),
        *("kv", "kv_type", "flash_attention", "batch_tokens", "ubatch_tokens"),
        *("drafting", "pinned_prefixes", "prefix_memory_mb", "defaults", "tool_format", "reasoning_format"),
    ),
    ("llama_cpp", "embedding"): (*_WEIGHTS, *_CACHE, *_GPU, "dimensions", "prompts"),
    ("llama_cpp", "rerank"): (*_WEIGHTS, *_CACHE, *_GPU),
    ("sentence_transformers", "embedding"): (*_WEIGHTS, *_CACHE, "device", "kernel", "dimensions", "prompts"),
    ("sentence_transformers", "rerank"): (*_WEIGHTS, *_CACHE, "device", "kernel"),
    ("script", "chat"): ("context", "defaults", "script"),
}
"""What may be configured: a backend with a kind that it serves, and the keys that do something for the two."""

KEYS_OF_ALL = (
    *("id", "kind", "backend", "aliases", "description", "display", "capabilities"),
    *("lazy", "pinned", "ttl_s", "prices"),
)

KEYS_OF_API = frozenset(
    ("aliases", "description", "display", "capabilities", "lazy", "pinned", "ttl_s", "prices", "defaults")
)
"""What workers do not look at: where nothing else of a model changes, its worker goes on as it is."""

CAPABILITIES: dict[ModelKind, tuple[Capability, ...]] = {
    "chat": ("chat", "completion", "tools", "code", "reasoning"),
    "embedding": ("embedding", "code"),
    "rerank": ("rerank", "code"),
}
"""What a model of a kind may claim to be able to."""


PromptName = Annotated[str, Field(min_length=1, max_length=128)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SamplingDefaults(Section):
    """Sampling values for requests that do not name their own."""

    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling; 1 is off.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens to generate; unset: until the context is full.")


class Prices(Section):
    """Of a million tokens, in whatever unit you reckon in. Usage records keep those of their time."""

    input: float = Field(0.0, ge=0, le=1_000_000, description="Tokens of prompts, and of an encoder's inputs.")
    output: float = Field(0.0, ge=0, le=1_000_000, description="Tokens of answers.")
    cached: float | None = Field(
        None, ge=0, le=1_000_000, description="Prompt tokens that were not computed again; default: as `input`."
    )

    @property
    def cached_or_input(self) -> float:
        return self.input if self.cached is None else self.cached


class Display(Section):
    """Facts for people; nothing depends on them."""

    parameters: str | None = Field(None, description="Size as people say it, e.g. `135M` or `30B-A3B`.")
    architecture: str | None = Field(None, description="e.g. `llama`, `qwen3moe`, `bert`.")
    hf_repo: str | None = Field(None, description="Origin, e.g. `HuggingFaceTB/SmolLM2-135M-Instruct`.")


class ModelConfig(Section):
    """One model: what it is, where its weights come from, how it runs."""

    id: ModelId = Field(description="Name that clients put in `model`.")
    kind: ModelKind = Field(description="What it does.")
    backend: Backend = Field(description="What runs it.")
    source: Source | None = Field(None, description=f"Where the weights come from: {', '.join(SOURCE_FORMS)}.")
    sha256: Sha256 | None = Field(
        None, description="Digest of the weights: of the file, or of the sorted `sha256sum` listing of a folder."
    )
    aliases: tuple[ModelAlias, ...] = Field((), description="Further names that clients may use.")
    description: str = Field("", description="One sentence for people.")
    display: Display = Field(default_factory=Display, description="Facts for people; nothing depends on them.")
    capabilities: tuple[Capability, ...] | None = Field(
        None, description="What clients may expect, among what fits the kind; default by kind."
    )
    lazy: bool = Field(False, description="Load at the first request instead of at start.")
    pinned: bool = Field(
        False, description="Stay in memory: neither `ttl_s` nor another model's want of memory unloads it."
    )
    ttl_s: float | None = Field(
        None,
        ge=0,
        description="Unload the model when nobody has asked it for so long, in seconds; the next request loads it "
        "again. 0: never. Default: `server.model_ttl_s`.",
    )
    prices: Prices = Field(default_factory=Prices, description="What a million tokens cost, for usage reports.")
    context: int | None = Field(
        None,
        ge=64,
        le=10_485_760,
        description="Most tokens of one request; default: the model's, at most 8192 for GGUF.",
    )
    max_sequences: int = Field(16, ge=1, le=256, description="Most chat generations that run at the same time.")
    kv_cells: int | None = Field(
        None,
        ge=64,
        description="Tokens that the KV cache holds for all chats; default: twice `context`, or `max_sequences` "
        "times it with `kv: streams`.",
    )
    kv: Literal["auto", "unified", "streams"] = Field(
        "auto",
        description="Layout of the KV cache: one pool for all running chats, or an equal part for each. `auto`: where "
        "each part can hold a whole `context`, what was measured to be faster, else one pool.",
    )
    kv_type: Literal["auto", KvType] = Field(
        "auto",
        description="What the KV cache stores its numbers as; the smaller ones need flash attention and change answers "
        "a little. `auto`: `f16`, or `q8_0` where it was measured to be much faster.",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Fused attention kernels; `auto`: what was measured to be faster, else on, save on a CPU with AMX.",
    )
    batch_tokens: int = Field(
        2048, ge=32, le=65536, description="Most tokens of one engine step (llama.cpp's `n_batch`)."
    )
    ubatch_tokens: int | None = Field(
        None,
        ge=32,
        le=65536,
        description="Tokens computed at a time (llama.cpp's `n_ubatch`), at most `batch_tokens`; default: what was "
        "measured to be faster, else 512.",
    )
    drafting: bool = Field(
        True,
        description="Guess the next tokens from the text so far where that pays; answers that quote get faster, and "
        "none changes.",
    )
    pinned_prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        max_length=16,
        description="System prompts that are computed at start and stay in the KV cache for ever.",
    )
    prefix_memory_mb: int | None = Field(
        None,
        ge=0,
        le=1_048_576,
        description="Memory beside the KV cache for what is computed of earlier prompts and finds no place there any "
        "more, in MiB; 0: none. Default: a sixteenth of the machine's, at most 2048.",
    )
    device: Device = Field(
        "auto",
        description="Where it computes: `cpu`, `cuda`, or one GPU, as `cuda:1`, numbered as nvidia-smi does. GGUF "
        "models use all GPUs, others the first. `auto`: on GPUs where there are some that its library was built for.",
    )
    gpu_layers: Annotated[int, Field(ge=0)] | Literal["auto", "all"] = Field(
        "auto",
        description="Layers of a GGUF model on GPUs, the output layer among them; `auto`: all, or of a chat "
        "model as many as fit into what is free there.",
    )
    split: Split = Field(
        "layer",
        description="How a GGUF model is spread over several GPUs: by whole layers, by the rows of each matrix, or not "
        "(`none`): it is on the first.",
    )
    tensor_split: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (),
        max_length=16,
        description="Parts that GPUs get of it, in their order, e.g. `[3, 1]`; default: by the memory that is free.",
    )
    kernel: Literal["auto", "exact", KernelName] = Field(
        "auto",
        description="Library and number format that compute an encoder; `auto`: what was measured to be the fastest "
        "whose results are right. `exact`: as the weights are, so fp32 in fp32, and int8 ONNX one input at a time. The "
        "packed ones compute no padding; they are for GPUs.",
    )
    dimensions: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (),
        max_length=32,
        description="Shorter lengths that embeddings may be cut to, for models trained so (Matryoshka).",
    )
    prompts: dict[PromptName, str] = Field(
        default_factory=dict,
        max_length=32,
        description="What requests can have put before inputs, by name (`query`, `document`); besides the model's own "
        "prompts, and in place of one of the same name. GGUF files hold none.",
    )
    cache_mb: int = Field(
        64,
        ge=0,
        le=1_048_576,
        description="Memory for vectors and scores that were computed before, in MiB; 0: nothing is remembered.",
    )
    cache_file: Path | None = Field(
        None,
        description="SQLite file, of at most 1 GiB, where they are kept as well and found again after a restart; "
        "models may share one. Relative to models.yaml.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Compute threads; default: all cores, or what was measured to be faster for chat.",
    )
    tool_format: Literal["auto", ToolFormatName] = Field(
        "auto",
        description="How the model writes tool calls. `auto`: as its chat template shows it; where that shows nothing "
        "known, the model is told to write them as Hermes does.",
    )
    reasoning_format: Literal["auto", "none", ReasoningFormatName] = Field(
        "auto",
        description="What the model puts around its reasoning: `<think>`, Mistral's `[THINK]`, Gemma's channel. "
        "`auto`: as its chat template shows it; `none`: reasoning is content. gpt-oss has channels for all of it.",
    )
    defaults: SamplingDefaults = Field(
        default_factory=SamplingDefaults, description="Sampling values for requests that do not name their own."
    )
    script: tuple[ScriptRule, ...] = Field((), description="Answers of a `script` model; first match wins.")

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        kinds = [kind for backend, kind in KEYS_IN_USE if backend == self.backend]
        if self.kind not in kinds:
            raise error_at(("kind",), f"backend {self.backend!r} serves {', '.join(kinds)}, not {self.kind!r}")
        self._check_keys()
        self._check_capabilities()
        if self.backend == "script" and not self.script:
            raise error_at((), "backend 'script' needs at least one rule under `script`")
        if self.backend != "script" and self.source is None:
            raise error_at((), f"backend {self.backend!r} needs a `source`: {', '.join(SOURCE_FORMS)}")
        if self.cache_file is not None and self.cache_mb == 0:
            raise error_at(("cache_file",), "cache_mb is 0, so nothing is remembered; remove one of the two")
        self._check_device()
        if self.kv_type in ("q8_0", "q4_0") and self.flash_attention == "off":
            message = f"kv_type {self.kv_type!r} needs flash attention; remove `flash_attention`, or use f16"
            raise error_at(("kv_type",), message)
        if self.ubatch_tokens is not None and self.ubatch_tokens > self.batch_tokens:
            message = f"ubatch_tokens is {self.ubatch_tokens} but batch_tokens is {self.batch_tokens}; lower it"
            raise error_at(("ubatch_tokens",), message)
        if self.pinned and self.ttl_s:
            message = f"ttl_s is {self.ttl_s:g}, but a pinned model is never unloaded; remove one of the two"
            raise error_at(("ttl_s",), message)
        if self.kv_cells is not None and self.context is not None and self.kv_cells < self.context:
            message = f"kv_cells is {self.kv_cells} but one request may hold context = {self.context} tokens"
            raise error_at(("kv_cells",), f"{message}; raise kv_cells or lower context")
        return self

    def _check_keys(self) -> None:
        """Refuse keys that would do nothing. One that says no more than the default is let be: dumps have them all."""
        in_use = KEYS_OF_ALL + KEYS_IN_USE[self.backend, self.kind]
        for key, field in type(self).model_fields.items():
            if key not in in_use and getattr(self, key) != field.get_default(call_default_factory=True):
                message = f"does nothing for backend {self.backend!r} and kind {self.kind!r}; remove it"
                raise error_at((key,), message)

    def _check_device(self) -> None:
        if self.device == "cpu" and self.gpu_layers not in ("auto", 0):
            message = f"gpu_layers is {self.gpu_layers} but device is 'cpu'; remove one of the two"
            raise error_at(("gpu_layers",), message)
        if self.tensor_split and (self.split == "none" or self.device == "cpu" or ":" in self.device):
            where = "split is 'none'" if self.split == "none" else f"device is {self.device!r}"
            raise error_at(("tensor_split",), f"{where}, so there is nothing to share out; remove one of the two")
        if self.tensor_split and not any(self.tensor_split):
            raise error_at(("tensor_split",), "all parts are 0; give one GPU a part")

    def _check_capabilities(self) -> None:
        for capability in self.capabilities or ():
            if capability not in CAPABILITIES[self.kind]:
                message = f"kind {self.kind!r} has no capability {capability!r}"
                raise error_at(("capabilities",), f"{message}; expected some of {', '.join(CAPABILITIES[self.kind])}")

    @property
    def worker_part(self) -> dict[str, object]:
        """What its worker depends on, as JSON has it."""
        return self.model_dump(mode="json", exclude=set(KEYS_OF_API))

    @property
    def effective_capabilities(self) -> tuple[Capability, ...]:
        """What clients may expect: as configured, or what the kind implies."""
        if self.capabilities is not None:
            return self.capabilities
        by_kind: dict[ModelKind, tuple[Capability, ...]] = {
            "chat": ("chat", "completion", "tools"),
            "embedding": ("embedding",),
            "rerank": ("rerank",),
        }
        return by_kind[self.kind]


class HearthConfig(Section):
    """All of models.yaml."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="The server itself.")
    models: tuple[ModelConfig, ...] = Field(min_length=1, description="The models to serve.")
    rag: RagSettings = Field(default_factory=RagSettings, description="How documents are read, embedded and found.")

    @model_validator(mode="after")
    def _check_unique_names(self) -> Self:
        owners: dict[str, str] = {}
        sections: tuple[tuple[tuple[str, ...], tuple[ModelConfig | RagModel, ...]], ...] = (
            (("models",), self.models),
            (("rag", "models"), self.rag.models),
        )
        for section, models in sections:
            for index, model in enumerate(models):
                for key, name in [("id", model.id), *(("aliases", alias) for alias in model.aliases)]:
                    if name in owners:
                        message = f"name {name!r} is used by {owners[name]!r} already; ids and aliases must be unique"
                        raise error_at((*section, index, key), message)
                    owners[name] = model.id
        return self

    @model_validator(mode="after")
    def _check_models_of_rag(self) -> Self:
        kinds = {name: model.kind for model in self.models for name in (model.id, *model.aliases)}
        wanted: list[tuple[tuple[str | int, ...], str | None, ModelKind]] = [
            (("embedding_model",), self.rag.embedding_model, "embedding"),
            (("rerank_model",), None if self.rag.rerank_model == NO_MODEL else self.rag.rerank_model, "rerank"),
            (("chat_model",), None if self.rag.chat_model == NO_MODEL else self.rag.chat_model, "chat"),
            *((("models", i, "chat_model"), model.chat_model, "chat") for i, model in enumerate(self.rag.models)),
        ]
        for key, name, kind in wanted:
            if name is not None and kinds.get(name) != kind:
                able = ", ".join(model.id for model in self.models if model.kind == kind) or "none"
                raise error_at(("rag", *key), f"{name!r} is not a model of kind {kind!r}; those here: {able}")
        return self
