"""Weights from the Hugging Face Hub, by huggingface_hub, which resumes downloads and keeps its own cache.

What is in that cache needs no network. `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` work as everywhere.
"""

from __future__ import annotations

import glob
import os
import shutil
import threading
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from server.errors import WeightsError
from server.models.digest import list_files, split_parts
from server.models.progress import OnProgress, Progress
from server.models.sources import HfSource

# What models are made of. Never pickles (*.bin, *.pt): loading one runs whatever code is inside.
_FILE_PATTERNS = ("*.safetensors", "*.gguf", "*.onnx", "*.onnx_data", "*.json", "*.txt", "*.model", "*.jinja")


def fetch_from_hub(source: HfSource, folder: Path, *, on_progress: OnProgress) -> None:
    """Put what `source` names into `folder`, under its own name.

    Files are hard links into the hub's cache where the file system allows it, else copies.

    Raises:
        WeightsError: The hub cannot be reached and the cache lacks the files, or the hub has no such thing.
    """
    patterns = _patterns(source)
    snapshot = _download(source, patterns, on_progress)
    names = [name for name in list_files(snapshot) if any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        raise WeightsError(f"{source} has no file that matches {', '.join(patterns)}; check the path after #")
    # `folder/<source.name>` is to be the named file or folder: cut off whatever leads to it in the repository.
    above = PurePosixPath(source.path).parent if source.path else PurePosixPath(".")
    root = folder if source.path else folder / source.name
    for name in names:
        target = root / PurePosixPath(name).relative_to(above)
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy((snapshot / name).resolve(), target)


def _patterns(source: HfSource) -> list[str]:
    if source.path is None:
        return list(_FILE_PATTERNS)
    parent = PurePosixPath(source.path).parent
    files = [str(parent / name) for name in split_parts(PurePosixPath(source.path).name)]
    inside = [f"{glob.escape(source.path)}/{pattern}" for pattern in _FILE_PATTERNS]
    return [*map(glob.escape, files), *inside]


def _download(source: HfSource, patterns: list[str], on_progress: OnProgress) -> Path:
    import huggingface_hub

    on_progress(Progress("downloading"))
    try:
        snapshot = huggingface_hub.snapshot_download(
            source.repo, revision=source.revision, allow_patterns=patterns, tqdm_class=_progress_bar(on_progress)
        )
    except Exception as exc:  # the library's errors, and those of its HTTP client, share no base
        reason = " ".join(str(exc).split())
        raise WeightsError(f"cannot fetch {source}: {reason}; check the name, the network and HF_TOKEN") from exc
    return Path(snapshot)


def _progress_bar(on_progress: OnProgress) -> Any:
    """Make a progress bar that draws nothing and reports bytes.

    The hub draws several: files done, bytes received, bytes written. The largest count of bytes is how far it is.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]  # huggingface_hub brings it, nobody brings its types

    lock = threading.Lock()
    done = 0

    class Bar(tqdm):  # type: ignore[misc]  # untyped, as above
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # huggingface_hub's own argument
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def display(self, *_: Any, **__: Any) -> bool:
            return True

        def update(self, n: float | None = 1) -> None:
            nonlocal done
            super().update(n)
            if self.unit == "B":
                with lock:
                    done = max(done, int(self.n))
                    on_progress(Progress("downloading", done, int(self.total) if self.total else None))

    return Bar


class _Nowhere:
    """A text file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def _link_or_copy(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(origin, target)
