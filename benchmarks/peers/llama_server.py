"""llama.cpp's own `llama-server`, built from the sources inside the pinned llama-cpp-python, with Hearth's compiler.

python -m benchmarks.peers.llama_server       # build it and print where it is
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from server.bindings.build_info import load_build_info
from server.models.cache_folder import cache_folder


def build_llama_server() -> Path:
    """Return the binary, building it first if needed (some minutes)."""
    build = load_build_info()
    name = f"llama-cpp-python-{build.llama_cpp_version}-{build.compiler_version.replace(' ', '-')}"
    name += "-cuda" if build.cuda else ""
    folder = cache_folder() / "peers" / name
    binary = folder / "build" / "bin" / "llama-server"
    if binary.exists():
        return binary
    source = _unpack(folder, version=build.llama_cpp_version)
    arguments = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
    same = [argument for argument in build.cmake_args if "LLAVA" not in argument]
    subprocess.run(["cmake", "-S", source, "-B", folder / "build", *arguments, *same], check=True)
    jobs = str(len(os.sched_getaffinity(0)))
    subprocess.run(["cmake", "--build", folder / "build", "--target", "llama-server", "-j", jobs], check=True)
    return binary


def version_of(binary: Path) -> str:
    """What the binary says of itself, e.g. `version: 0.5.0 (build 1, commit 0c1e570)`."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).splitlines()[0]


def _unpack(folder: Path, *, version: str) -> Path:
    """llama.cpp's sources out of the sdist: set-up's own copy, or else one that pip fetches."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = cache_folder() / "sdist" / f"llama_cpp_python-{version}.tar.gz"
    if not archive.exists():
        requirement = f"llama-cpp-python=={version}"
        options = ["--no-deps", "--no-binary", "llama-cpp-python", "-d", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
        (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    return source


if __name__ == "__main__":
    print(build_llama_server())
