"""`hearth config`: check models.yaml, show what is in force and why, print the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from server.cli.settings import ConfigOption, HostOption, PortOption, load_or_exit
from server.config.load import LoadedConfig, flatten
from server.config.reference import json_schema

app = typer.Typer(no_args_is_help=True, help="Check and show the configuration.")


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="models.yaml to check", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Check models.yaml, the environment and the files they name; exit with 2 if something is wrong."""
    loaded = load_or_exit(file or config)
    served = ", ".join(f"{model.id} ({model.kind})" for model in loaded.config.models)
    typer.echo(f"{loaded.path} is right; it serves {served}")


@app.command()
def show(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say for each key where its value comes from.")] = False,
) -> None:
    """Print the configuration in force: flags over environment over models.yaml over defaults."""
    loaded = load_or_exit(config, flags={"host": host, "port": port}, require_files=False)
    if origin:
        _print_origins(loaded)
    else:
        values = loaded.config.model_dump(mode="json")
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of models.yaml, for editors."""
    typer.echo(json_schema(), nl=False)


def _print_origins(loaded: LoadedConfig) -> None:
    values = {key: json.dumps(value, ensure_ascii=False) for key, value in flatten(loaded.config).items()}
    key_width, value_width = max(map(len, values)), min(48, max(map(len, values.values())))
    for key, origin in loaded.origins.items():
        typer.echo(f"{key:{key_width}}  {values[key]:{value_width}}  {origin}")
