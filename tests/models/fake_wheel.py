"""A wheel that pip accepts, and models whose weights are in it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from server.config.schema import ModelConfig


def make_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a wheel `fake_weights` 1.0 with the given files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fake_weights-1.0-py3-none-any.whl"
    metadata = {
        "METADATA": b"Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.0\n",
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, content in metadata.items():
            archive.writestr(f"fake_weights-1.0.dist-info/{name}", content)
    return path


def gguf_model(source: str, sha256: str | None = None) -> ModelConfig:
    return ModelConfig(id="m", kind="chat", backend="llama_cpp", source=source, sha256=sha256)
