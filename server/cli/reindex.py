"""`hearth reindex`: embed a vector store anew, with another model or with one that has changed."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.client import ApiKeyOption, ServerClient, ServerFailure, UrlOption, connect
from server.cli.interrupt import Interrupt
from server.cli.settings import ConfigOption, fail
from server.cli.stores import find_store

POLL_S = 0.5


def reindex(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Vector store, by name or id.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Embedding model [default: that of new vector stores]")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the reindex that is going on.")] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Embed all of a vector store anew, in the background of the running server.

    Searches find what they found before until all is done. Ctrl-C ends the waiting, not the work.
    """
    client = connect(url, config, api_key)
    try:
        store_id = find_store(client, store)
        if store_id is None:
            fail(f"there is no vector store named {store!r}")
        path = f"/v1/vector_stores/{store_id}/reindex"
        if cancel:
            _tell(client.try_request("POST", f"{path}/cancel"))
            return
        body = {} if model is None else {"embedding_model": model}
        _tell(_wait(client, path, client.try_request("POST", path, body)))
    except ServerFailure as exc:
        fail(str(exc))


def _wait(client: ServerClient, path: str, state: dict[str, Any]) -> dict[str, Any]:
    """Show how far it is, until it is over or somebody asks for an end."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    console = Console(stderr=True, highlight=False)
    hidden = not console.is_terminal
    with Interrupt() as interrupt, Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("")
        while state["status"] == "in_progress" and not interrupt.is_asked:
            done, total = state["num_chunks_done"], state["num_chunks"]
            waiting = f" ({state['waiting_for']})" if state["waiting_for"] else ""
            bar.update(task, description=f"{done} of {total} chunks{waiting}", completed=done, total=total)
            interrupt.event.wait(POLL_S)
            state = client.try_request("GET", path)
    return state


def _tell(state: dict[str, Any]) -> None:
    counts = f"{state['num_chunks_done']} of {state['num_chunks']} chunks, model {state['embedding_model']}"
    if state["status"] == "failed":
        fail(f"{state['last_error']['message']} ({counts})")
    typer.echo(f"{state['status'].replace('_', ' ')}: {counts}")
