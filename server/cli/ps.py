"""`hearth ps`: the models of the running server and their states."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

from server.cli.client import ApiKeyOption, JsonOption, UrlOption, connect
from server.cli.settings import ConfigOption

_COLORS = {"ready": "green", "loading": "yellow", "draining": "yellow", "failed": "red"}


def ps(
    as_json: JsonOption = False, config: ConfigOption = None, url: UrlOption = None, api_key: ApiKeyOption = None
) -> None:
    """List the models of the running server and their states."""
    models = connect(url, config, api_key).get("/v1/models")["data"]
    if as_json:
        typer.echo(json.dumps(models))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "KIND", "STATE", "CONTEXT", "SIZE"):
        table.add_column(title, overflow="fold")
    for model in models:
        color = _COLORS.get(model["state"], "default")
        size = (model.get("display") or {}).get("parameters") or ""
        context = str(model["context_length"] or "")
        table.add_row(model["id"], model["kind"], f"[{color}]{model['state']}[/{color}]", context, size)
    console = Console()
    console.print(table)
    for model in models:
        if model.get("error"):
            console.print(
                f"{model['id']}: {model['error']}", style="red", highlight=False, markup=False, soft_wrap=True
            )
