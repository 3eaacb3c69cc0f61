"""`hearth reload`: put models.yaml in force in the running server."""

from __future__ import annotations

import json

import typer

from server.cli.client import ApiKeyOption, JsonOption, UrlOption, connect
from server.cli.exit_codes import ExitCode
from server.cli.settings import ConfigOption, print_error

_LISTED = ("added", "removed", "replaced", "updated", "unchanged")


def reload(
    as_json: JsonOption = False, config: ConfigOption = None, url: UrlOption = None, api_key: ApiKeyOption = None
) -> None:
    """Have the running server read its models.yaml again; models that did not change go on as they are.

    Waits until new and changed models are loaded.
    """
    report = connect(url, config, api_key).post("/admin/reload", {})
    if as_json:
        typer.echo(json.dumps(report))
    else:
        for name in _LISTED:
            if report[name]:
                typer.echo(f"{name}: {', '.join(report[name])}")
        if report["needs_restart"]:
            typer.echo(f"in force after a restart: {', '.join(report['needs_restart'])}")
        for model_id, reason in report["failed"].items():
            goes_on = " (goes on as it was)" if model_id in report["kept"] else ""
            print_error(f"{model_id}{goes_on}: {reason}")
    raise typer.Exit(ExitCode.FAILED if report["failed"] else ExitCode.DONE)
