"""The part of llama-cpp-python's source that a build for CPUs and NVIDIA GPUs needs: some 4 MB of 77.

For machines that cannot fetch the whole, and containers that should not copy it. The archive is the same, byte for
byte, whenever it is made from the same source. Standard library only.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

_LLAMA = "vendor/llama.cpp"

_KEPT = (
    r"(CMakeLists\.txt|LICENSE\.md|PKG-INFO|README\.md|pyproject\.toml)",
    r"llama_cpp/.+",
    rf"{_LLAMA}/(CMakeLists\.txt|LICENSE|AUTHORS)",
    rf"{_LLAMA}/(cmake|common|include|licenses|src|vendor)/.+",
    rf"{_LLAMA}/ggml/(CMakeLists\.txt|LICENSE|ggml\.pc\.in)",
    rf"{_LLAMA}/ggml/(cmake|include)/.+",
    rf"{_LLAMA}/ggml/src/[^/]+",
    rf"{_LLAMA}/ggml/src/ggml-(cpu|cuda)/.+",
    rf"{_LLAMA}/tools/mtmd/.+",
)
_KEPT_FOR_SERVER = (rf"{_LLAMA}/tools/.+", rf"{_LLAMA}/(tests|examples|pocs|app|grammars|scripts)/CMakeLists\.txt")
_LEFT_OUT = re.compile(r".+\.(gif|jpe?g|mp3|mp4|png|svg|wav|webp)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/trim_llama_source", description=__doc__)
    parser.add_argument("sdist", type=Path, help="llama_cpp_python-VERSION.tar.gz, as pip downloads it")
    parser.add_argument("archive", type=Path, help="where to write the trimmed one; pip builds from it in the same way")
    parser.add_argument("--with-server", action="store_true", help="llama-server's sources too, for benchmarks")
    arguments = parser.parse_args()
    count = trim(arguments.sdist, arguments.archive, with_server=arguments.with_server)
    size_mb = arguments.archive.stat().st_size / 1e6
    print(f"{arguments.archive}: {count} files, {size_mb:.1f} MB", file=sys.stderr)
    return 0


def trim(sdist: Path, archive: Path, *, with_server: bool = False) -> int:
    """Write the trimmed source, whole or not at all; return how many files it has."""
    part = archive.with_name(f".{archive.name}.part")
    try:
        with part.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            count = _copy(sdist, packed, [*_KEPT, *(_KEPT_FOR_SERVER if with_server else ())])
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return count


def _copy(sdist: Path, packed: gzip.GzipFile, patterns: Sequence[str]) -> int:
    is_kept = re.compile("|".join(patterns))
    with tarfile.open(sdist) as source, tarfile.open(fileobj=packed, mode="w") as target:
        members = [member for member in source if member.isfile() and _is_wanted(member.name, is_kept)]
        for member in sorted(members, key=lambda each: each.name):
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            target.addfile(_plain(member, len(data)), io.BytesIO(data))
    return len(members)


def _is_wanted(name: str, is_kept: re.Pattern[str]) -> bool:
    """Whether a file is part of it, by its path below the archive's one folder."""
    path = name.partition("/")[2]
    return is_kept.fullmatch(path) is not None and not _LEFT_OUT.fullmatch(path)


def _plain(member: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    """Without times and owners, which differ between copies of the same source."""
    plain = tarfile.TarInfo(member.name)
    plain.size, plain.mode = size, 0o755 if member.mode & 0o100 else 0o644
    return plain
