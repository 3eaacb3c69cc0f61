"""`hearth backup` and `hearth restore`: all that a server keeps, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from server.cli.settings import ConfigOption, fail, load_or_exit
from server.errors import StorageError
from server.storage.data_layout import DataLayout

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Data directory [default: of models.yaml]", show_default=False)
]


def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder for the backup; it must not exist yet.")],
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Back up files, vector stores, keys and usage into a folder, also while the server runs.

    The backup is read to its end before it gets its name.
    """
    from server.rag.backup import back_up

    folder = _data_dir(data_dir, config)
    with Console(stderr=True).status("backing up") as status:
        try:
            made = back_up(folder, dest, status.update)
        except StorageError as exc:
            fail(exc.message)
    keys = ", keys and usage" if made.has_accounts else " (there are no keys)"
    size = f"{made.num_bytes / (1 << 20):.1f} MiB"
    typer.echo(f"{dest}: {made.num_files} files and the database{keys}, {size}, all read back")


def restore(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Folder that `hearth backup` has made.")],
    data_dir: DataDirOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is there; it is kept in a folder of its own.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Put a backup into a data directory that no server uses; everything is checked before anything changes."""
    from server.rag.backup import restore as restore_backup

    folder = _data_dir(data_dir, config)
    with Console(stderr=True).status("restoring") as status:
        try:
            kept = restore_backup(src, folder, replace=replace, report=status.update)
        except StorageError as exc:
            fail(exc.message)
    typer.echo(f"restored to {folder}; indexes are made when they are searched")
    if DataLayout(src).accounts.exists():
        typer.echo("keys that were revoked after the backup was made are good again: see `hearth key list`")
    if kept is not None:
        typer.echo(f"what was there before is in {kept}")


def _data_dir(data_dir: Path | None, config: Path | None) -> Path:
    return load_or_exit(config, require_files=False).config.server.data_dir if data_dir is None else data_dir
