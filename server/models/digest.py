"""Which files make up a model's weights, and the one SHA-256 that stands for them.

One file has its own digest. A folder, and a GGUF split into parts, have the digest of their `sha256sum` listing sorted
by path, which a shell computes as well:

    cd FOLDER && find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum -- | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_SPLIT_GGUF = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})\.gguf")
_CHUNK_BYTES = 1 << 20


def split_parts(name: str) -> list[str]:
    """Return the names of all parts when `name` is the first part of a split GGUF, else `name` alone."""
    match = _SPLIT_GGUF.fullmatch(name)
    if match is None:
        return [name]
    count = int(match["count"])
    return [f"{match['stem']}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]


def root_of(entry: Path) -> Path:
    """Return the folder that the names of `list_files` are relative to."""
    return entry if entry.is_dir() else entry.parent


def list_files(entry: Path) -> list[str]:
    """Return the sorted names, with `/`, of the files that belong to the weights at `entry`, a file or a folder."""
    if not entry.is_dir():
        return split_parts(entry.name)
    found = [Path(folder, name) for folder, _, names in os.walk(entry) for name in names]
    return sorted(path.relative_to(entry).as_posix() for path in found)


def digest(entry: Path, names: Iterable[str], *, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """Compute the SHA-256, in hex, of the weights at `entry` that consist of the files `names`.

    Args:
        on_bytes: Told the size of each piece once it is read.
    """
    root = root_of(entry)
    digests = {name: _file_digest(root / name, on_bytes) for name in sorted(names)}
    if list(digests) == [entry.name] and not entry.is_dir():
        return digests[entry.name]
    listing = "".join(f"{hex_digest}  {name}\n" for name, hex_digest in digests.items())
    return hashlib.sha256(os.fsencode(listing)).hexdigest()


def _file_digest(path: Path, on_bytes: Callable[[int], None]) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            on_bytes(len(chunk))
    return sha256.hexdigest()
