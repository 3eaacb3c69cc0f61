"""`hearth embed`: vectors of texts from the running server."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from server.cli.client import ApiKeyOption, JsonOption, ModelOption, UrlOption, connect
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, fail


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, one per line of standard input.")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Embed texts; print one JSON array of numbers per line."""
    inputs = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not inputs:
        fail("there is nothing to embed; give texts as arguments or lines of standard input", code=ExitCode.WRONG_INPUT)
    client = connect(url, config, api_key)
    answer = client.post("/v1/embeddings", {"model": client.model_of("embedding", model), "input": inputs})
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for item in answer["data"]:
        typer.echo(json.dumps(item["embedding"]))
