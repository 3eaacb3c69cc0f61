"""`hearth chat`: talk to a chat model of the running server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from server.cli.client import ModelOption, ServerClient, UrlOption, connect
from server.cli.settings import ConfigOption

_HELP = "Empty line or /bye ends, /new forgets the conversation."

Message = dict[str, str]


def chat(
    prompt: Annotated[list[str] | None, typer.Argument(help="What to say; without it, a conversation begins.")] = None,
    model: ModelOption = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", help="Most tokens per answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", "-t", help="0 is greedy.")] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Chat with a model: one question on the command line or standard input, or a conversation."""
    client = connect(url, config)
    options = {
        "model": client.model_of("chat", model),
        **({"max_tokens": max_tokens} if max_tokens is not None else {}),
        **({"temperature": temperature} if temperature is not None else {}),
    }
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
                said.append(content)
                typer.echo(content, nl=False)
    finally:  # an error message, too, begins on a line of its own
        if said:
            typer.echo()
    return "".join(said)
