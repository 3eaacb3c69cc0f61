"""What commands share: the --config option, loading it or leaving with code 2, and error lines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NoReturn

import typer

from server.cli.exit_codes import ExitCode
from server.config.explain import nearest
from server.config.load import LoadedConfig, load_config
from server.config.schema import HearthConfig, ModelConfig
from server.errors import ConfigError
from server.models.cache_folder import cache_folder

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="models.yaml to use [default: $HEARTH_CONFIG, ./models.yaml]"),
]
# No range or default here: the schema has them, and its message is the better one.
HostOption = Annotated[str | None, typer.Option("--host", help="Address to bind.", show_default=False)]
PortOption = Annotated[
    str | None, typer.Option("--port", "-p", help="TCP port; 0 takes a free one.", show_default=False)
]


def load_or_exit(
    path: Path | None, *, flags: Mapping[str, object] = MappingProxyType({}), require_files: bool = True
) -> LoadedConfig:
    """Load the configuration as `load_config` does; if it is wrong, say so and exit with code 2."""
    try:
        return load_config(path, flags=flags, environ=os.environ, require_files=require_files)
    except ConfigError as exc:
        fail(exc.message, code=ExitCode.WRONG_INPUT)


def choose_models(settings: HearthConfig, names: Sequence[str]) -> list[ModelConfig]:
    """Return the models of those ids or aliases, all if there are none; exit with code 2 at an unknown one."""
    by_name = {name: model for model in settings.models for name in (model.id, *model.aliases)}
    for name in names:
        if name not in by_name:
            known = ", ".join(model.id for model in settings.models)
            message = f"model {name!r} is not in models.yaml, which has {known}{nearest(name, by_name)}"
            fail(message, code=ExitCode.WRONG_INPUT)
    return list({by_name[name].id: by_name[name] for name in names}.values()) or list(settings.models)


def print_error(message: str) -> None:
    """Write one `error: ` line per line of the message to standard error."""
    for line in message.splitlines():
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(line, err=True)


def fail(message: str, *, code: int = ExitCode.FAILED) -> NoReturn:
    """Print the error and end the command."""
    print_error(message)
    raise typer.Exit(code)


def cache_dir() -> Path:
    """Return the user's folder of downloads, which all checkouts share."""
    return cache_folder() / "downloads"
