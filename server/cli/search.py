"""`hearth search`: what a vector store has on a question."""

from __future__ import annotations

import json
import textwrap
from typing import Annotated

import typer

from server.cli.client import ApiKeyOption, JsonOption, UrlOption, connect
from server.cli.place import place
from server.cli.printable import printable
from server.cli.settings import ConfigOption
from server.cli.stores import existing_store

EXCERPT_CHARACTERS = 240


def search(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Vector store, by name or id.")],
    question: Annotated[str, typer.Argument(help="What is looked for.")],
    top_n: Annotated[int, typer.Option("--top", "-n", help="Print the best so many.", min=1, max=50)] = 5,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Search a vector store; print score, file, page, heading and the beginning of each hit, best first."""
    client = connect(url, config, api_key)
    store_id = existing_store(client, store)
    answer = client.post(f"/v1/vector_stores/{store_id}/search", {"query": question, "max_num_results": top_n})
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for hit in answer["data"]:
        text = " ".join(part["text"] for part in hit["content"])
        where = place(hit["filename"], hit["x"]["page"], hit["x"]["heading"])
        typer.echo(f"{hit['score']:.3f}  {printable(where)}")
        typer.echo(textwrap.indent(textwrap.shorten(printable(text), EXCERPT_CHARACTERS, placeholder=" …"), " " * 7))
