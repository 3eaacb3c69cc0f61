"""What searches have found, remembered between starts: a small JSON file per model, machine and configuration.

Knows no llama.cpp: the commands read it too. A file that cannot be read counts as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from server.bindings.build_info import load_build_info
from server.bindings.cpu import read_cpu
from server.bindings.gpu import find_gpus
from server.config.schema import ModelConfig
from server.encoders.kernel_choice import KernelFinding
from server.workers.messages import WorkerSpec
from server.workers.tuning import Tuning

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""So many searches may die before none is begun any more: llama.cpp ends the process on what it does not like."""

_METHOD = 2
"""Changes with the way of measuring: what was found in another way is found again."""

_CHAT_KEYS = (
    *("context", "max_sequences", "kv_cells", "gpu_layers", "device", "split", "tensor_split"),
    *("kv", "kv_type", "flash_attention", "threads", "batch_tokens", "ubatch_tokens"),
)
_ENCODER_KEYS = ("kind", "context", "device", "threads")
"""What of a model's configuration changes what a search may choose, or what it measures."""

_CHAT_RUNTIME = ("llama-cpp-python",)
_ENCODER_RUNTIME = ("torch", "onnxruntime", "sentence-transformers", "transformers")
"""What computes, as packages are named: another version may be faster."""

TuningKey = Mapping[str, str]
"""All that a finding depends on, readable for people who look into the file."""


FoundT = TypeVar("FoundT", Tuning, KernelFinding)


class _Record(msgspec.Struct, Generic[FoundT], frozen=True, kw_only=True, omit_defaults=True):
    model: str
    key: dict[str, str]
    num_attempts: int = 0
    tuning: FoundT | None = None


class TuningCache(Generic[FoundT]):
    """The findings about one model as configured, on this machine. Several processes may use one folder."""

    def __init__(
        self, folder: Path, model_id: str, key: TuningKey, *, decoder: msgspec.json.Decoder[_Record[FoundT]]
    ) -> None:
        self._folder = folder
        self._model_id = model_id
        self._key = dict(key)
        self._decoder: msgspec.json.Decoder[_Record[FoundT]] = decoder
        digest = hashlib.sha256(msgspec.json.encode(self._key, order="sorted")).hexdigest()
        self.path = folder / f"{digest[:24]}.json"

    def load(self) -> FoundT | None:
        """What earlier searches found, if any."""
        record = self._read()
        return record.tuning if record else None

    def may_measure(self) -> bool:
        """Whether earlier searches have not died too often."""
        record = self._read()
        return record is None or record.num_attempts < MAX_ATTEMPTS

    def begin(self) -> None:
        """Note that a search begins, so that the next process knows if this one dies of it."""
        record = self._read() or _Record(model=self._model_id, key=self._key)
        self._write(num_attempts=record.num_attempts + 1, tuning=record.tuning)

    def save(self, tuning: FoundT) -> None:
        """Remember what a search found; it has not died."""
        self._write(tuning=tuning)

    def _read(self) -> _Record[FoundT] | None:
        try:
            record = self._decoder.decode(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            logger.warning("remembered settings cannot be read", extra={"path": str(self.path), "reason": str(exc)})
            return None
        return record if record.key == self._key else None

    def _write(self, *, num_attempts: int = 0, tuning: FoundT | None = None) -> None:
        """Write the file whole or not at all; where that fails the search is just run again."""
        record = _Record(model=self._model_id, key=self._key, num_attempts=num_attempts, tuning=tuning)
        part = self._folder / f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("settings cannot be remembered", extra={"path": str(self.path), "reason": str(exc)})


def open_cache(config: ModelConfig, spec: WorkerSpec) -> TuningCache[Tuning] | None:
    """How the chat model of `spec` is best run; None if nothing is to be remembered.

    Raises:
        OSError: The weights are gone.
    """
    if spec.tuning_dir is None:
        return None
    build = load_build_info()
    key = _key(config, spec, _CHAT_KEYS, _CHAT_RUNTIME) | {
        "gpus": ", ".join(find_gpus()) if build.cuda else "",
        "build": f"{build.compiler_version} {build.wheel_sha256}",
        "repacked_weights": str(build.use_extra_bufts and not spec.portable_kernels),
    }
    return TuningCache(Path(spec.tuning_dir), config.id, key, decoder=msgspec.json.Decoder(_Record[Tuning]))


def open_kernel_cache(config: ModelConfig, spec: WorkerSpec) -> TuningCache[KernelFinding] | None:
    """Which kernel is best for the embedding or rerank model of `spec`; else as `open_cache`."""
    if spec.tuning_dir is None:
        return None
    key = _key(config, spec, _ENCODER_KEYS, _ENCODER_RUNTIME) | {"gpus": ", ".join(find_gpus())}
    return TuningCache(Path(spec.tuning_dir), config.id, key, decoder=msgspec.json.Decoder(_Record[KernelFinding]))


def _key(config: ModelConfig, spec: WorkerSpec, keys: tuple[str, ...], runtime: tuple[str, ...]) -> dict[str, str]:
    """What a finding about any model depends on."""
    assert spec.weights_path is not None
    cpu = read_cpu()
    return {
        "method": str(_METHOD),
        **_weights_key(config, Path(spec.weights_path)),
        "cpu": " ".join((cpu.model, *cpu.notable_features)),
        "cores": str(spec.num_threads),
        **{package: importlib.metadata.version(package) for package in runtime},
        **{name: str(getattr(config, name)) for name in keys},
    }


def _weights_key(config: ModelConfig, weights: Path) -> dict[str, str]:
    if config.sha256:
        return {"weights": config.sha256}
    stats = [path.stat() for path in weights.rglob("*") if path.is_file()] or [weights.stat()]
    size, changed_ns = sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
    return {"weights": f"{weights.name}, {size} bytes, changed {changed_ns}"}
