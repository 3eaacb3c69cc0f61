from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from scripts.trimmed_source import trim

TOP = "llama_cpp_python-1.0"
NEEDED = (
    "CMakeLists.txt",
    "pyproject.toml",
    "llama_cpp/llama_cpp.py",
    "vendor/llama.cpp/CMakeLists.txt",
    "vendor/llama.cpp/LICENSE",
    "vendor/llama.cpp/cmake/common.cmake",
    "vendor/llama.cpp/common/common.cpp",
    "vendor/llama.cpp/include/llama.h",
    "vendor/llama.cpp/src/llama.cpp",
    "vendor/llama.cpp/src/models/qwen3.cpp",
    "vendor/llama.cpp/vendor/nlohmann/json.hpp",
    "vendor/llama.cpp/ggml/CMakeLists.txt",
    "vendor/llama.cpp/ggml/include/ggml.h",
    "vendor/llama.cpp/ggml/src/ggml.c",
    "vendor/llama.cpp/ggml/src/ggml-cpu/amx/amx.cpp",
    "vendor/llama.cpp/ggml/src/ggml-cuda/mmq.cu",
    "vendor/llama.cpp/tools/mtmd/clip.cpp",
)
FOR_SERVER = ("vendor/llama.cpp/tools/CMakeLists.txt", "vendor/llama.cpp/tools/server/server.cpp")
IDLE = (
    "docs/index.md",
    "vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp",
    "vendor/llama.cpp/ggml/src/ggml-metal/ggml-metal.m",
    "vendor/llama.cpp/models/ggml-vocab-qwen2.gguf",
    "vendor/llama.cpp/media/logo.svg",
    "vendor/llama.cpp/tools/mtmd/test-1.jpeg",
)


def write_sdist(path: Path, *, mtime: int = 0, reverse: bool = False) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in sorted((*NEEDED, *FOR_SERVER, *IDLE), reverse=reverse):
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size, member.mtime, member.mode = len(name), mtime, 0o600
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix(f"{TOP}/") for member in tar}


def test_what_a_build_needs_is_kept_and_nothing_else(tmp_path: Path) -> None:
    archive = tmp_path / "trimmed.tar.gz"

    count = trim(write_sdist(tmp_path / "s.tar.gz"), archive)

    assert names_in(archive) == set(NEEDED)
    assert count == len(NEEDED)


def test_a_benchmark_gets_the_server_too(tmp_path: Path) -> None:
    archive = tmp_path / "trimmed.tar.gz"

    trim(write_sdist(tmp_path / "s.tar.gz"), archive, with_server=True)

    assert names_in(archive) == {*NEEDED, *FOR_SERVER}


def test_the_same_source_gives_the_same_archive(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar.gz", tmp_path / "other.tar.gz"

    trim(write_sdist(tmp_path / "a.tar.gz"), one)
    trim(write_sdist(tmp_path / "b.tar.gz", mtime=1_700_000_000, reverse=True), other)

    assert one.read_bytes() == other.read_bytes()


def test_contents_stay_as_they_are(tmp_path: Path) -> None:
    archive = tmp_path / "trimmed.tar.gz"
    trim(write_sdist(tmp_path / "s.tar.gz"), archive)

    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"{TOP}/{NEEDED[-1]}")
        assert file
        assert file.read() == NEEDED[-1].encode()


def test_what_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"no archive")

    with pytest.raises(tarfile.ReadError):
        trim(tmp_path / "s.tar.gz", tmp_path / "trimmed.tar.gz")

    assert [path.name for path in tmp_path.iterdir()] == ["s.tar.gz"]
