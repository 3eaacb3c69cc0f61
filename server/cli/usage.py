"""`hearth usage`: who used which model for how much."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from server.cli.client import ApiKeyOption, JsonOption, ServerFailure, UrlOption, connect
from server.cli.printable import printable
from server.cli.settings import ConfigOption, fail
from server.cli.tables import print_table

_NUMBERS = {
    "num_requests": "REQUESTS",
    "num_failed": "FAILED",
    "prompt_tokens": "PROMPT",
    "cached_tokens": "CACHED",
    "completion_tokens": "ANSWERS",
    "cost": "COST",
}


def usage(
    group_by: Annotated[
        str,
        typer.Option("--by", "-b", help="Any of model, key, tenant, sender, day, kind, status, with commas between."),
    ] = "model",
    since: Annotated[
        str | None, typer.Option("--from", help="First day or time, e.g. 2026-01-31 [default: all]", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="First day or time that does not belong to it.", show_default=False)
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="This tenant only.", show_default=False)] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Tell how many requests and tokens, and at what cost; of the own tenant, or of all for whoever runs the server."""
    wanted = {"group_by": group_by, "from": since, "to": until, "tenant": tenant}
    query = {name: value for name, value in wanted.items() if value is not None}
    try:
        report = connect(url, config, api_key).try_request("GET", "/v1/usage", query=query)
    except ServerFailure as exc:
        fail(str(exc))
    if as_json:
        typer.echo(json.dumps(report))
        return
    dimensions = group_by.split(",") if group_by else []
    table = Table(box=None, pad_edge=False)
    for name in dimensions:
        table.add_column(name.upper(), overflow="fold")
    for title in _NUMBERS.values():
        table.add_column(title, justify="right", no_wrap=True)
    for line in report["data"]:
        values = [printable(line[name] or "-") for name in dimensions]
        table.add_row(*values, *(_number(line[name]) for name in _NUMBERS))
    print_table(table)


def _number(value: float) -> str:
    return f"{value:,.6f}" if isinstance(value, float) else f"{value:,}"
