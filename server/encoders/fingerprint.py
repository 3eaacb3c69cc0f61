"""Name what an encoder's vectors, or scores, depend on, so that a store can tell whether its own are still comparable.

Not the kernel, which changes them by less than anybody can notice, and not when files were made: the same weights on
another machine have the same fingerprint. `vector_file.fingerprint_of` is stricter, since a cache may forget.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from server.types import ModelFacts

_SUFFIXES = frozenset({".safetensors", ".gguf", ".onnx", ".onnx_data", ".json", ".txt", ".model"})
"""Weights, tokenizer and configuration; what else lies in the folder is for people."""

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16
"""A file is read whole up to 4 MiB; of a larger one so much is read, evenly spread: weights may have gigabytes."""

_SPLIT_GGUF = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})\.gguf")


def model_fingerprint(weights_path: Path, facts: ModelFacts) -> str:
    """Return a hex digest of the weights, pooling, prompts, dimensions and the longest input.

    NOTE: samples the files even where models.yaml has their `sha256`. Adding that line later, as is advised after the
    first pull, must not look like another model.
    """
    content = hashlib.sha256()
    for name, path in _files_of(weights_path):
        content.update(f"{name} {path.stat().st_size} ".encode())
        content.update(_sample(path))
    pooling = facts.details.get("pooling", "")
    settings = (pooling, sorted(facts.prompts.items()), facts.dimensions, facts.context_length)
    content.update(repr(settings).encode())
    return content.hexdigest()


def _files_of(weights_path: Path) -> list[tuple[str, Path]]:
    """Path inside the folder, and path, of each file; a model that is one file may have any name."""
    if weights_path.is_dir():
        paths = {path.relative_to(weights_path): path for path in weights_path.rglob("*") if path.suffix in _SUFFIXES}
        hidden = {name for name in paths if any(part.startswith(".") for part in name.parts)}  # a download's own notes
        return sorted((name.as_posix(), paths[name]) for name in paths.keys() - hidden if paths[name].is_file())
    split = _SPLIT_GGUF.fullmatch(weights_path.name)
    if split is None:
        return [("", weights_path)]
    parts = range(1, int(split["count"]) + 1)
    return [
        (str(part), weights_path.with_name(f"{split['stem']}-{part:05}-of-{split['count']}.gguf")) for part in parts
    ]


def _sample(path: Path) -> bytes:
    size = path.stat().st_size
    content = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _NUM_SAMPLES * _SAMPLE_BYTES:
            content.update(file.read())
        else:
            for index in range(_NUM_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * index // (_NUM_SAMPLES - 1))
                content.update(file.read(_SAMPLE_BYTES))
    return content.digest()
