"""The files of a folder that could be documents, with the digests of their contents."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_DOCUMENT = re.compile(
    r"\..*|.*\.(7z|a|avi|bin|bmp|bz2|class|db|dll|eot|exe|flac|gguf|gif|gz|ico|inv|iso|jar|jpe?g|mov|mp[34]|npy|o|ogg"
    r"|onnx|otf|pickle|pkl|png|pt|pyc|safetensors|so|sqlite|svg|tar|tiff?|ttf|wav|web[mp]|whl|woff2?|xz|zip|zst)",
    re.IGNORECASE,
)
"""Hidden files, and what by its name holds no text. The server knows better and refuses more; these are not sent."""


@dataclass(frozen=True)
class LocalFile:
    """A file of the folder. `path` is relative to it, with slashes, and is text even where `source` is not."""

    source: Path
    path: str
    num_bytes: int
    sha256: str


class Folder:
    """Knows the digest of a file until its size or its time of change differs.

    Attributes:
        unreadable: What the last scan could not read, with the reason by path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unreadable: dict[str, str] = {}
        self._known: dict[str, tuple[tuple[int, int], LocalFile]] = {}

    def scan(self) -> dict[str, LocalFile]:
        """All files by path, in order, without hidden ones and links."""
        self.unreadable = {}
        found: dict[str, tuple[tuple[int, int], LocalFile]] = {}
        for path in sorted(self._paths()):
            relative = os.fsencode(path.relative_to(self.root)).decode(errors="replace")
            try:
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                known = self._known.get(relative)
                file = known[1] if known and known[0] == version else _read(path, relative)
            except FileNotFoundError:
                continue  # gone meanwhile
            except OSError as exc:
                self.unreadable[relative] = exc.strerror or type(exc).__name__
                continue
            found[relative] = (version, file)
        self._known = found
        return {path: file for path, (_, file) in found.items()}

    def _paths(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths = [Path(folder, name) for name in names if not _NO_DOCUMENT.fullmatch(name)]
            yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _read(path: Path, relative: str) -> LocalFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return LocalFile(path, relative, file.tell(), digest)
