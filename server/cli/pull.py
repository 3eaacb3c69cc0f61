"""`hearth pull`: fetch and verify the weights of the configured models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from server.cli.settings import ConfigOption, cache_dir, choose_models, fail, load_or_exit, print_error
from server.config.schema import ModelConfig
from server.errors import WeightsError
from server.models.progress import OnProgress, Progress
from server.models.pull import pull as pull_weights
from server.models.weights import WeightsStore


def pull(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Ids or aliases; all models if none.")
    ] = None,
    config: ConfigOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Hash again what is there, and replace what is damaged.")
    ] = False,
) -> None:
    """Fetch and verify model weights; what is there already is left alone."""
    settings = load_or_exit(config, require_files=False).config
    chosen = choose_models(settings, models or [])
    store = WeightsStore(settings.server.weights_dir, cache_dir())
    failed = [model.id for model in chosen if not _pull_one(model, store, deep=deep)]
    if failed:
        fail(f"{len(failed)} of {len(chosen)} models could not be pulled: {', '.join(failed)}")


def _pull_one(model: ModelConfig, store: WeightsStore, *, deep: bool) -> bool:
    started = time.monotonic()
    try:
        with _shown_progress(model.id) as on_progress:
            status = pull_weights(model, store, deep=deep, on_progress=on_progress)
    except WeightsError as exc:
        print_error(exc.message)
        return False
    took = f"{time.monotonic() - started:.1f} s"
    what = f"{_mebibytes(status.size_bytes)}, sha256 {status.sha256}" if status.path else "has no weights"
    typer.echo(f"{model.id}: ready ({what}) in {took}")
    return True


@contextmanager
def _shown_progress(name: str) -> Iterator[OnProgress]:
    """Draw a bar on a terminal; elsewhere write a line for each phase, and for each tenth of a download."""
    if not sys.stderr.isatty():
        yield _ProgressLines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None)

        def show(progress: Progress) -> None:
            description = f"{name}: {progress.phase}"
            bars.update(task, description=description, completed=progress.done_bytes, total=progress.total_bytes)

        yield show


class _ProgressLines:
    """Progress as plain lines on standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        total = progress.total_bytes if progress.phase == "downloading" else None
        tenth = 10 * progress.done_bytes // total if total else 0
        if (progress.phase, tenth) != self._last:
            self._last = (progress.phase, tenth)
            amount = f" {_mebibytes(progress.done_bytes)} of {_mebibytes(total)}" if total else ""
            typer.echo(f"{self._name}: {progress.phase}{amount}", err=True)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
