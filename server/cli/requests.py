"""`hearth requests`: what the running server is doing, and what it did last."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from server.cli.client import (
    ApiKeyOption,
    JsonObject,
    JsonOption,
    Refused,
    ServerClient,
    ServerFailure,
    UrlOption,
    connect,
)
from server.cli.printable import printable
from server.cli.settings import ConfigOption, fail
from server.cli.tables import print_table

_ID_LENGTH = 12
"""Of an id, in the table: all of it would leave a terminal of 80 columns no room for the rest. `--json` has it all."""

_NOT_FOUND = 404


def requests(
    num_recent: Annotated[int, typer.Option("--recent", "-n", help="Of those that are over, the last so many.")] = 10,
    cancel: Annotated[
        str | None,
        typer.Option(
            "--cancel", metavar="ID", help="End a live request; as much of its id as the table shows will do."
        ),
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
            ended = _cancel(client, cancel)
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
        table.add_column(title, justify="right", no_wrap=True)
    for line in [*found["live"], *found["recent"][:num_recent]]:
        table.add_row(*map(printable, _cells(line)))
    print_table(table)


def _cancel(client: ServerClient, name: str) -> JsonObject:
    """End the request of this id, or else the one live request whose id begins like this; raises ServerFailure."""
    try:
        return _cancel_whole(client, name)
    except Refused as exc:
        if exc.status != _NOT_FOUND:
            raise
        live = client.try_request("GET", "/admin/requests")["live"]
        ids = [line["id"] for line in live if line["id"].startswith(name)]
        if not ids:
            raise
        if len(ids) > 1:
            fail(f"{len(ids)} live requests have ids that begin with {name!r}: {', '.join(ids)}")
    return _cancel_whole(client, ids[0])


def _cancel_whole(client: ServerClient, name: str) -> JsonObject:
    return client.try_request("DELETE", f"/admin/requests/{quote(name, safe='')}")


def _cells(line: JsonObject) -> tuple[str, ...]:
    return (
        line["id"][:_ID_LENGTH],
        line["model"] or line["path"],
        line["tenant"],
        line["key_id"] or "-",
        line["status"] or line["stage"],
        f"{line['age_ms'] / 1000:.1f} s",
        str(line["prompt_tokens"]),
        str(line["completion_tokens"]),
    )
