"""`hearth chat`: talk to a chat model of the running server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from server.cli.client import ApiKeyOption, JsonObject, ModelOption, ServerClient, UrlOption, connect
from server.cli.place import place
from server.cli.printable import printable
from server.cli.settings import ConfigOption
from server.cli.stores import existing_store

_HELP = "Empty line or /bye ends, /new forgets the conversation."

Message = dict[str, str]


def chat(
    prompt: Annotated[list[str] | None, typer.Argument(help="What to say; without it, a conversation begins.")] = None,
    model: ModelOption = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", help="Most tokens per answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", help="0 is greedy.")] = None,
    stores: Annotated[
        list[str] | None, typer.Option("--store", help="Answer from this vector store; may be repeated.")
    ] = None,
    top_n: Annotated[int, typer.Option("--top", help="Of the stores, look at the best so many.", min=1, max=50)] = 10,
    config: ConfigOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Chat with a model: one question on the command line or standard input, or a conversation.

    With --store, what an answer rests on is printed below it.
    """
    client = connect(url, config, api_key)
    options: dict[str, object] = {
        "model": client.model_of("chat", model),
        **({"max_tokens": max_tokens} if max_tokens is not None else {}),
        **({"temperature": temperature} if temperature is not None else {}),
    }
    if stores:
        store_ids = [existing_store(client, name) for name in stores]
        options["tools"] = [{"type": "file_search", "vector_store_ids": store_ids, "max_num_results": top_n}]
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    if prompt or not sys.stdin.isatty():
        question = " ".join(prompt) if prompt else sys.stdin.read()
        _answer(client, options, [*messages, {"role": "user", "content": question}])
    else:
        _converse(client, options, messages)


def _converse(client: ServerClient, options: dict[str, object], first: list[Message]) -> None:
    console = Console()
    console.print(f"[bold]{options['model']}[/bold]  {_HELP}", highlight=False)
    messages = list(first)
    while True:
        try:
            question = console.input("[bold cyan]> [/bold cyan]").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if question in ("", "/bye"):
            return
        if question == "/new":
            messages = list(first)
            continue
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": _answer(client, options, messages)})


def _answer(client: ServerClient, options: dict[str, object], messages: list[Message]) -> str:
    """Print the answer as it comes, and what is thought before it to standard error; return the answer."""
    said: list[str] = []
    citations: list[JsonObject] = []
    is_thinking = False
    try:
        for event in client.stream("/v1/chat/completions", {**options, "messages": messages, "stream": True}):
            for choice in event["choices"]:
                delta = choice["delta"]
                thought, content = delta.get("reasoning_content") or "", delta.get("content") or ""
                if thought:
                    typer.secho(thought, dim=True, nl=False, err=True)
                elif content and is_thinking:
                    typer.echo("\n", err=True)
                is_thinking = bool(thought) or (is_thinking and not content)
                citations += delta.get("annotations") or []
                said.append(content)
                typer.echo(content, nl=False)
    finally:  # an error message, too, begins on a line of its own
        if said:
            typer.echo()
    _show(citations)
    return "".join(said)


def _show(citations: Sequence[JsonObject]) -> None:
    """Print the places that an answer rests on, each once, with what stands there."""
    places: dict[str, list[str]] = {}
    for each in citations:
        extra = each["x"]
        quotes = places.setdefault(
            f"[{extra['number']}] {place(each['filename'], extra['page'], extra['section'])}", []
        )
        if extra["quote"] and extra["quote"] not in quotes:
            quotes.append(extra["quote"])
    for where, quotes in places.items():
        typer.secho(printable(where), bold=True)
        for quote in quotes:
            typer.echo(f"    {printable(' '.join(quote.split()))}")
