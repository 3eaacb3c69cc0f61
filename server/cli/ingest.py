"""`hearth ingest`: make a vector store hold what a folder holds, once or for as long as it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from server.cli import sync
from server.cli.client import ApiKeyOption, ServerClient, ServerFailure, UrlOption, connect
from server.cli.exit_codes import ExitCode
from server.cli.folder import Folder
from server.cli.interrupt import Interrupt
from server.cli.printable import printable
from server.cli.settings import ConfigOption, fail, print_error
from server.cli.stores import find_store
from server.cli.sync import Report, Sync
from server.cli.sync_plan import Plan, make_plan

RETRY_S = 5.0
"""Between two tries of `--watch` to reach a server that is gone."""

CHUNKING = {"type": "structural", "max_chunk_size_tokens": 240, "parent_tokens": 960}
"""Of stores that are made here: chunks of one subject each, which nearly every embedding model reads whole."""

_STYLES = {"failed": "red", "refused": "yellow"}


def ingest(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of documents.", exists=True, file_okay=False)],
    store: Annotated[str, typer.Option("--store", "-s", help="Vector store, by name or id; made if it is new.")],
    label: Annotated[
        str | None, typer.Option("--label", help="What the store calls this folder [default: its name]")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove documents that the folder has no more.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: follow new, changed, moved and deleted files until Ctrl-C.")
    ] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Put the documents of a folder into a vector store; only what is new or has changed is sent."""
    root = folder.resolve()
    client = connect(url, config, api_key)
    with Interrupt() as interrupt:
        try:
            store_id = find_store(client, store) or _create(client, store)
            run = _Run(client, store_id, Folder(root), label or root.name or "root", interrupt, prune=prune)
            num_failed = run.once()
            if watch:
                _watch(run)
        except ServerFailure as exc:
            fail(str(exc))
    if interrupt.is_asked and not watch:
        fail("interrupted; the server finishes what it has, and the next run sends the rest", code=ExitCode.INTERRUPTED)
    raise typer.Exit(ExitCode.FAILED if num_failed and not watch else ExitCode.DONE)


class _Run:
    """Compares and synchronises, as often as asked, and prints what becomes of each file."""

    def __init__(
        self, client: ServerClient, store_id: str, folder: Folder, label: str, interrupt: Interrupt, *, prune: bool
    ) -> None:
        self.folder = folder
        self.interrupt = interrupt
        self.console = Console(highlight=False, soft_wrap=True)
        self._prune = prune
        self._seen: set[str] = set()  # what was there since the command began
        self._counts: Counter[str] = Counter()
        self._sync = Sync(client, store_id, label, interrupt, self._report, lambda _progress: None)

    def once(self, *, is_quiet: bool = False) -> int:
        """Bring the store up to date, also by what has gone since the last time; return how many files failed.

        Args:
            is_quiet: Say nothing if there was nothing to do.

        Raises:
            ServerFailure: The server cannot go on.
        """
        self._counts.clear()
        local = self.folder.scan()
        # What is stored of a folder that cannot be read now is neither gone nor moved.
        stored = [each for each in self._sync.stored() if not self.folder.is_unknown(each.path)]
        plan = make_plan(local, stored, is_pruned=self._is_pruned)
        self._seen.update(local)
        for path, reason in self.folder.unreadable.items():
            self._report(Report(path, "failed", reason))
        with self._bar():
            self._sync.run(plan)
        if self._counts or not is_quiet:
            self._summarise(plan)
        return self._counts["failed"]

    def _is_pruned(self, path: str) -> bool:
        return self._prune or path in self._seen

    @contextmanager
    def _bar(self) -> Iterator[None]:
        """Show how far the run is, where somebody can see it."""
        columns = (TextColumn("{task.fields[files]}"), BarColumn(bar_width=None), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("", total=None, files="")

            def show(progress: sync.Progress) -> None:
                files = f"{progress.num_done} of {progress.num_files} files"
                bar.update(task, total=progress.total_cost, completed=progress.cost_done, files=files)

            self._sync.on_progress = show
            yield

    def _report(self, report: Report) -> None:
        self._counts[report.ending] += 1
        line = Text(f"{report.ending:<8}", style=_STYLES.get(report.ending, ""))
        line.append(f" {printable(report.path)}", style="")
        self.console.print(line.append(f"  {printable(report.detail)}" if report.detail else "", style="dim"))

    def _summarise(self, plan: Plan) -> None:
        counts = [f"{count} {ending}" for ending, count in sorted(self._counts.items())]
        if plan.refused:
            counts.append(f"{len(plan.refused)} refused before")
        self.console.print(", ".join([*counts, f"{plan.num_unchanged} unchanged"]))


def _create(client: ServerClient, name: str) -> str:
    if name.startswith("vs_"):
        fail(f"there is no vector store {name!r}; to make a new one, give it a name")
    return str(client.try_request("POST", "/v1/vector_stores", {"name": name, "chunking_strategy": CHUNKING})["id"])


def _watch(run: _Run) -> None:
    """Synchronise after each change until interrupted; a server that is away is waited for."""
    import watchfiles

    changes = watchfiles.watch(
        run.folder.root, watch_filter=None, stop_event=run.interrupt.event, raise_interrupt=False, yield_on_timeout=True
    )
    run.console.print(f"watching {printable(str(run.folder.root))} (Ctrl-C ends it)", markup=False)
    is_behind = True  # by what has changed before the watching began
    for changed in changes:
        if not changed and not is_behind:
            continue
        is_behind = True
        try:
            run.once(is_quiet=True)
            is_behind = False
        except ServerFailure as exc:
            print_error(str(exc))
            run.interrupt.event.wait(RETRY_S)
