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

import msgspec

from server.bindings.build_info import load_build_info
from server.bindings.cpu import read_cpu
from server.bindings.gpu import find_gpus
from server.config.schema import ModelConfig
from server.workers.messages import WorkerSpec
from server.workers.tuning import Tuning

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""So many searches may die before none is begun any more: llama.cpp ends the process on what it does not like."""

_METHOD = 1
"""Changes with the way of measuring: what was found in another way is found again."""

_KEYS = (
    *("context", "max_sequences", "kv_cells", "gpu_layers"),
    *("kv", "kv_type", "flash_attention", "threads", "batch_tokens", "ubatch_tokens"),
)
"""What of a model's configuration changes what a search may choose, or what it measures."""

TuningKey = Mapping[str, str]
"""All that a finding depends on, readable for people who look into the file."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    key: dict[str, str]
    num_attempts: int = 0
    tuning: Tuning | None = None


class TuningCache:
    """The findings about one model as configured, on this machine. Several processes may use one folder."""

    def __init__(self, folder: Path, model_id: str, key: TuningKey) -> None:
        self._folder = folder
        self._model_id = model_id
        self._key = dict(key)
        digest = hashlib.sha256(msgspec.json.encode(self._key, order="sorted")).hexdigest()
        self.path = folder / f"{digest[:24]}.json"

    def load(self) -> Tuning | None:
        """What the last complete search found, if any."""
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

    def save(self, tuning: Tuning) -> None:
        """Remember what a search found; it has not died."""
        self._write(tuning=tuning)

    def _read(self) -> _Record | None:
        try:
            record = msgspec.json.decode(self.path.read_bytes(), type=_Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            logger.warning("remembered settings cannot be read", extra={"path": str(self.path), "reason": str(exc)})
            return None
        return record if record.key == self._key else None

    def _write(self, *, num_attempts: int = 0, tuning: Tuning | None = None) -> None:
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


def open_cache(config: ModelConfig, spec: WorkerSpec) -> TuningCache | None:
    """The findings about the model of `spec`; None if nothing is to be remembered.

    Raises:
        OSError: The weights are gone.
    """
    if spec.tuning_dir is None:
        return None
    assert spec.weights_path is not None
    key = _weights_key(config, Path(spec.weights_path)) | _machine_key(spec)
    key |= {name: str(getattr(config, name)) for name in _KEYS}
    return TuningCache(Path(spec.tuning_dir), config.id, key)


def _weights_key(config: ModelConfig, weights: Path) -> dict[str, str]:
    if config.sha256:
        return {"weights": config.sha256}
    stat = weights.stat()
    return {"weights": f"{weights.name}, {stat.st_size} bytes, changed {stat.st_mtime_ns}"}


def _machine_key(spec: WorkerSpec) -> dict[str, str]:
    build, cpu = load_build_info(), read_cpu()
    return {
        "method": str(_METHOD),
        "cpu": " ".join((cpu.model, *cpu.notable_features)),
        "cores": str(spec.num_threads),
        "gpus": ", ".join(find_gpus()) if build.cuda else "",
        "llama_cpp": importlib.metadata.version("llama-cpp-python"),
        "build": f"{build.compiler_version} {build.wheel_sha256}",
        "repacked_weights": str(build.use_extra_bufts and not spec.portable_kernels),
    }
