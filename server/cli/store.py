"""`hearth store`: a vector store as one file, to be taken from one server to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from server.cli.client import ApiKeyOption, ServerFailure, UrlOption, connect
from server.cli.settings import ConfigOption, fail
from server.cli.stores import find_store

app = typer.Typer(no_args_is_help=True, help="Export and import vector stores.")


@app.command(name="export")
def export_store(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Vector store, by name or id.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; it must not exist yet.")],
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Write a vector store into one file: its files, texts, chunks and vectors."""
    if file.exists():
        fail(f"{file} exists already; name a file that does not")
    client = connect(url, config, api_key)
    part = file.with_name(f"{file.name}.part")
    try:
        store_id = find_store(client, store)
        if store_id is None:
            fail(f"there is no vector store named {store!r}")
        with Console(stderr=True).status("exporting"), part.open("wb") as target:
            client.try_download(f"/v1/vector_stores/{store_id}/export", target)
        part.rename(file)
    except ServerFailure as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"{file} cannot be written: {exc.strerror}")
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"{file}: {file.stat().st_size / (1 << 20):.1f} MiB")


@app.command(name="import")
def import_store(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `hearth store export` has written.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the new store [default: as it was]")] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Make a new vector store of a file; all of it or nothing. Print its id."""
    client = connect(url, config, api_key)
    fields = {} if name is None else {"name": name}
    try:
        with Console(stderr=True).status("importing"), file.open("rb") as content:
            store = client.try_upload(content, file.name, path="/v1/vector_stores/import", fields=fields)
    except ServerFailure as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"{file} cannot be read: {exc.strerror}")
    typer.echo(f"{store['id']}  {store['name']}: {store['file_counts']['completed']} documents")
