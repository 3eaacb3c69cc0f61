"""`hearth logs`: what the workers of the running server have logged lately."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from server.cli.client import ApiKeyOption, ServerFailure, UrlOption, connect
from server.cli.printable import printable
from server.cli.settings import ConfigOption, fail

_LOOK_S = 0.5


def logs(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Id or alias; all models if none.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is logged from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=5000, help="How many to begin with.")] = 200,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Print what the workers have logged lately; the server keeps the last thousand lines of each."""
    client = connect(url, config, api_key)
    query: dict[str, str | int] = {"limit": lines} | ({"model": model} if model else {})
    while True:
        try:
            page = client.try_request("GET", "/admin/logs", query=query)
        except ServerFailure as exc:
            fail(str(exc))
        for line in page["data"]:
            when = time.strftime("%H:%M:%S", time.localtime(line["at"]))
            typer.echo(f"{when} {line['model']}: {printable(line['text'])}")
        if not follow:
            return
        query |= {"after": page["last"], "limit": 5000}
        time.sleep(_LOOK_S)
