"""The files of a folder that could be documents, with the digests of their contents."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
        unreadable: Files and folders that the last scan could not read, with the reason by path; `.` is the root.
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
            relative = self._relative(path)
            try:
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                version = (status.st_mtime_ns, status.st_size)
                known = self._known.get(relative)
                file = known[1] if known and known[0] == version else _read(path, relative)
            except FileNotFoundError:
                continue  # gone meanwhile
            except OSError as exc:
                self._note_unreadable(path, exc)
                continue
            found[relative] = (version, file)
        self._known = found
        return {path: file for path, (_, file) in found.items()}

    def is_unknown(self, path: str) -> bool:
        """Whether the last scan cannot tell if there is such a file: it or a folder above it is unreadable."""
        place = PurePosixPath(path)
        return any(str(each) in self.unreadable for each in (place, *place.parents))

    def _paths(self) -> Iterator[Path]:
        """What is no folder and could be a document by its name."""
        for folder, folders, names in os.walk(self.root, onerror=self._note_folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(folder, name) for name in names if not _NO_DOCUMENT.fullmatch(name))

    def _note_folder(self, exc: OSError) -> None:
        path = Path(exc.filename or self.root)
        if isinstance(exc, FileNotFoundError) and path != self.root:
            return  # gone meanwhile, with its files; a root that is gone was moved or unmounted
        self._note_unreadable(path, exc)

    def _note_unreadable(self, path: Path, exc: OSError) -> None:
        self.unreadable[self._relative(path)] = exc.strerror or type(exc).__name__

    def _relative(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self.root)).decode(errors="replace")


def _read(path: Path, relative: str) -> LocalFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return LocalFile(path, relative, file.tell(), digest)
