"""`hearth ps`: the models of the running server and their states."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

from server.cli.client import ApiKeyOption, JsonObject, JsonOption, UrlOption, connect
from server.cli.settings import ConfigOption
from server.models.memory_plan import gib

_COLORS = {"ready": "green", "loading": "yellow", "draining": "yellow", "failed": "red"}


def ps(
    as_json: JsonOption = False, config: ConfigOption = None, url: UrlOption = None, api_key: ApiKeyOption = None
) -> None:
    """List the models of the running server: states, memory, requests in flight, when they will be unloaded."""
    models = connect(url, config, api_key).get("/v1/models")["data"]
    if as_json:
        typer.echo(json.dumps(models))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "KIND", "STATE", "SIZE", "CONTEXT", "BUSY", "UNTIL"):
        table.add_column(title, overflow="fold")
    for model in models:
        color = _COLORS.get(model["state"], "default")
        size = gib(model["memory_bytes"]) if model["memory_bytes"] else ""
        context, busy = str(model["context_length"] or ""), str(model["num_requests"] or "")
        state = f"[{color}]{state_text(model)}[/{color}]"
        table.add_row(model["id"], model["kind"], state, size, context, busy, _until(model))
    console = Console()
    console.print(table)
    for model in models:
        if note := model.get("error") or model.get("waiting_for"):
            console.print(f"{model['id']}: {note}", style="red", highlight=False, markup=False, soft_wrap=True)


def state_text(model: JsonObject) -> str:
    """The state, with how far a load has come: `loading 40%`."""
    fraction = (model.get("loading") or {}).get("fraction")
    return f"{model['state']} {fraction:.0%}" if fraction is not None else str(model["state"])


def _until(model: JsonObject) -> str:
    """When the model leaves memory by itself."""
    if model["state"] != "ready":
        return ""
    if model["pinned"]:
        return "pinned"
    left_s = model["expires_in_s"]
    if left_s is None:
        return ""
    return f"in {left_s / 60:.0f} min" if left_s >= 90 else f"in {left_s:.0f} s"
