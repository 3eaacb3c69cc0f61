"""`hearth rerank`: documents sorted by their relevance to a query, from the running server."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from server.cli.client import ApiKeyOption, JsonOption, ModelOption, UrlOption, connect
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, fail


def rerank(
    query: Annotated[str, typer.Argument(help="What is asked.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents; without any, one per line of standard input.")
    ] = None,
    model: ModelOption = None,
    top_n: Annotated[int | None, typer.Option("--top", "-n", help="Print only the best so many.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Sort documents by relevance to a query; print score and document, best first."""
    candidates = documents or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not candidates:
        fail(
            "there is nothing to rerank; give documents as arguments or lines of standard input",
            code=ExitCode.WRONG_INPUT,
        )
    client = connect(url, config, api_key)
    body: dict[str, object] = {"model": client.model_of("rerank", model), "query": query, "documents": candidates}
    if top_n is not None:
        body["top_n"] = top_n
    answer = client.post("/v1/rerank", body)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for result in answer["results"]:
        typer.echo(f"{result['relevance_score']:.4f}  {candidates[result['index']]}")
