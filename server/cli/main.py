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

# As `hearth --help` groups them, in this order.
_SERVE = "Serve"
_ASK = "Ask"
_DOCUMENTS = "Documents"
_RUNNING = "A running server"
_KEPT = "Keys and data"

app = typer.Typer(
    name="hearth",
    help="Serve chat, embedding and rerank models of models.yaml over an OpenAI-compatible API.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
)
app.command(rich_help_panel=_SERVE)(serve.serve)
app.command(rich_help_panel=_SERVE)(pull.pull)
app.command(rich_help_panel=_SERVE)(plan.plan)
app.command(rich_help_panel=_SERVE)(tune.tune)
app.command(rich_help_panel=_SERVE)(doctor.doctor)
app.command(rich_help_panel=_ASK)(chat.chat)
app.command(rich_help_panel=_ASK)(embed.embed)
app.command(rich_help_panel=_ASK)(rerank.rerank)
app.command(rich_help_panel=_DOCUMENTS)(ingest.ingest)
app.command(rich_help_panel=_DOCUMENTS)(search.search)
app.command(rich_help_panel=_DOCUMENTS)(reindex.reindex)
app.command(rich_help_panel=_RUNNING)(ps.ps)
app.command(rich_help_panel=_RUNNING)(loading.load)
app.command(rich_help_panel=_RUNNING)(loading.unload)
app.command(rich_help_panel=_RUNNING)(reload.reload)
app.command(rich_help_panel=_RUNNING)(requests.requests)
app.command(rich_help_panel=_RUNNING)(usage.usage)
app.command(rich_help_panel=_RUNNING)(logs.logs)
app.command(rich_help_panel=_RUNNING)(bench.bench)
app.command(rich_help_panel=_KEPT)(backup.backup)
app.command(rich_help_panel=_KEPT)(backup.restore)
app.add_typer(config.app, name="config", rich_help_panel=_SERVE)
app.add_typer(store.app, name="store", rich_help_panel=_DOCUMENTS)
app.add_typer(eval.app, name="eval", rich_help_panel=_DOCUMENTS)
app.add_typer(key.app, name="key", rich_help_panel=_KEPT)


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
