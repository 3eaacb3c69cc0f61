"""The `hearth` command: registers every sub-command, does nothing itself."""

from __future__ import annotations

from typing import Annotated

import typer

import server
from server.cli import (
    backup,
    bench,
    chat,
    config,
    doctor,
    embed,
    eval,
    ingest,
    key,
    loading,
    logs,
    plan,
    ps,
    pull,
    reindex,
    reload,
    requests,
    rerank,
    search,
    serve,
    store,
    tune,
    usage,
)

app = typer.Typer(
    name="hearth",
    help="Serve chat, embedding and rerank models of models.yaml over an OpenAI-compatible API.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
)
app.command()(serve.serve)
app.command()(pull.pull)
app.command()(chat.chat)
app.command()(embed.embed)
app.command()(rerank.rerank)
app.command()(ingest.ingest)
app.command()(search.search)
app.command()(reindex.reindex)
app.command()(ps.ps)
app.command()(requests.requests)
app.command()(usage.usage)
app.command()(loading.load)
app.command()(loading.unload)
app.command()(reload.reload)
app.command()(logs.logs)
app.command()(plan.plan)
app.command()(doctor.doctor)
app.command()(tune.tune)
app.command()(bench.bench)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(key.app, name="key")
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")
app.add_typer(eval.app, name="eval")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"hearth {server.__version__}")
        raise typer.Exit


@app.callback()
def hearth(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve chat, embedding and rerank models of models.yaml over an OpenAI-compatible API."""


def main() -> None:
    """Entry point of the console script."""
    app()
