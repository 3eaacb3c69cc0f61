"""`hearth requests`: what the running server is doing, and what it did last."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from server.cli.client import ApiKeyOption, JsonObject, JsonOption, ServerFailure, UrlOption, connect
from server.cli.printable import printable
from server.cli.settings import ConfigOption, fail


def requests(
    num_recent: Annotated[int, typer.Option("--recent", "-n", help="Of those that are over, the last so many.")] = 10,
    cancel: Annotated[
        str | None, typer.Option("--cancel", metavar="ID", help="End a live request.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """List the requests that are live, and the last that were; or cancel one."""
    client = connect(url, config, api_key)
    try:
        if cancel is not None:
            ended = client.try_request("DELETE", f"/admin/requests/{quote(cancel, safe='')}")
            typer.echo(json.dumps(ended) if as_json else f"{ended['num_cancelled']} cancelled")
            return
        found = client.try_request("GET", "/admin/requests")
    except ServerFailure as exc:
        fail(str(exc))
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("ID", no_wrap=True)  # to be copied
    for title in ("MODEL", "TENANT", "KEY", "STAGE"):
        table.add_column(title, overflow="fold")
    for title in ("AGE", "PROMPT", "TOKENS"):
        table.add_column(title, justify="right")
    for line in [*found["live"], *found["recent"][:num_recent]]:
        table.add_row(*map(printable, _cells(line)))
    Console(markup=False).print(table)


def _cells(line: JsonObject) -> tuple[str, ...]:
    return (
        line["id"],
        line["model"] or line["path"],
        line["tenant"],
        line["key_id"] or "-",
        line["status"] or line["stage"],
        f"{line['age_ms'] / 1000:.1f} s",
        str(line["prompt_tokens"]),
        str(line["completion_tokens"]),
    )
