"""`hearth serve`: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop

import server
from server.app import build_app
from server.cli.settings import ConfigOption, HostOption, PortOption, cache_dir, fail, load_or_exit
from server.config.schema import HearthConfig, ServerSettings
from server.models.weights import WeightsStore
from server.telemetry.logs import configure_logs, resolve_format

DRAIN_S = 30
"""How long running requests may take to end after SIGTERM or Ctrl-C; a second signal ends them at once."""

_BACKLOG = 2048


def serve(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    weights_dir: Annotated[Path | None, typer.Option("--weights-dir", help="Folder for model files.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
) -> None:
    """Serve the models of models.yaml over HTTP.

    Models load in the background: the server answers at once, and each model as soon as it is ready.
    """
    flags = {"host": host, "port": port, "weights_dir": weights_dir, "log_level": log_level}
    settings = load_or_exit(config, flags=flags, require_files=False).config
    configure_logs(settings.server.log_level, resolve_format(settings.server.log_format))
    listener = _bind(settings.server)
    _say_hello(settings, listener)
    # uvicorn ends with raising the signal that stopped it once more; an orderly end is exit code 0 all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(settings, listener))


async def _run(settings: HearthConfig, listener: socket.socket) -> None:
    store = WeightsStore(settings.server.weights_dir, cache_dir())
    uvicorn_config = uvicorn.Config(
        build_app(settings, store),
        http="httptools",
        log_config=None,
        access_log=False,  # the API writes one line per request itself
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    await uvicorn.Server(uvicorn_config).serve(sockets=[listener])


def _bind(settings: ServerSettings) -> socket.socket:
    """Take the port before anything heavy starts; leave with one line if it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as exc:
        remedy = (
            "choose another with --port, or stop the other server"
            if exc.errno == errno.EADDRINUSE
            else "see `hearth doctor`"
        )
        fail(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; {remedy}", code=1)
    return listener


def _say_hello(settings: HearthConfig, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    typer.echo(f"Hearth {server.__version__} listens on {url} (Ctrl-C stops it)")
    for model in settings.models:
        when = "loads at its first request" if model.lazy else "loading"
        typer.echo(f"  {model.kind:<9}  {model.id}  ({when})")
