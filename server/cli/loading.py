"""`hearth load` and `hearth unload`: models of the running server in and out of memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from server.cli.client import ApiKeyOption, JsonObject, ServerClient, UrlOption, connect
from server.cli.ps import state_text
from server.cli.settings import ConfigOption, fail, print_error
from server.models.memory_plan import gib

_LOOK_S = 0.3

ModelsArgument = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Ids or aliases.")]


def load(
    models: ModelsArgument, config: ConfigOption = None, url: UrlOption = None, api_key: ApiKeyOption = None
) -> None:
    """Load models into memory, and wait until they are ready."""
    client = connect(url, config, api_key)
    failed = [name for name in models if not _load(client, name)]
    if failed:
        fail(f"{len(failed)} of {len(models)} models could not be loaded: {', '.join(failed)}")


def unload(
    models: ModelsArgument, config: ConfigOption = None, url: UrlOption = None, api_key: ApiKeyOption = None
) -> None:
    """Free the memory of models; the next request loads them again. What runs may take half a minute to end."""
    client = connect(url, config, api_key)
    for name in models:
        _unload(client, name)


def _load(client: ServerClient, name: str) -> bool:
    began_at = time.monotonic()
    model = _follow(client, name, "load", during=("loading", "draining"))
    if model["state"] != "ready":
        print_error(f"{name}: {model['state']}: {model.get('error') or model.get('waiting_for') or 'unloaded again'}")
        return False
    size = f" ({gib(model['memory_bytes'])})" if model["memory_bytes"] else ""
    typer.echo(f"{name}: ready{size} in {time.monotonic() - began_at:.1f} s")
    return True


def _unload(client: ServerClient, name: str) -> None:
    began_at = time.monotonic()
    model = _follow(client, name, "unload", during=("draining",))
    again = "" if model["state"] == "unloaded" else f"; requests have had it loaded again: {state_text(model)}"
    typer.echo(f"{name}: unloaded in {time.monotonic() - began_at:.1f} s{again}")


def _follow(client: ServerClient, name: str, action: str, *, during: Sequence[str]) -> JsonObject:
    """Ask for it, and wait while the model is on its way."""
    path = f"/v1/models/{name}"
    model = client.post(f"{path}/{action}", {}, expect=(200, 202))
    with Console(stderr=True).status("") as status:
        while model["state"] in during:
            status.update(f"{name}: {state_text(model)}")
            time.sleep(_LOOK_S)
            model = client.get(path)
    return model
