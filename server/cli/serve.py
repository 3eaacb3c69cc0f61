"""`hearth serve`: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
import uvloop

import server
from server.app import build_app
from server.cli.settings import ConfigOption, HostOption, PortOption, cache_dir, fail, load_or_exit
from server.config.load import load_config
from server.config.schema import HearthConfig, ServerSettings
from server.errors import HearthError, StorageError
from server.models.weights import WeightsStore
from server.storage.data_lock import data_lock
from server.telemetry.logs import configure_logs, resolve_format

logger = logging.getLogger(__name__)

DRAIN_S = 30.0
"""How long running requests may take to end after SIGTERM or Ctrl-C; a second signal ends them at once. Meanwhile new
connections are refused."""

_LAST_WORDS_S = 1.0
"""What is left of `DRAIN_S` to those that take longer, for an answer or an event that says so."""

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
    loaded = load_or_exit(config, flags=flags, require_files=False)
    settings = loaded.config

    def read_again() -> HearthConfig:
        return load_config(loaded.path, flags=flags, environ=os.environ, require_files=False).config

    configure_logs(settings.server.log_level, resolve_format(settings.server.log_format))
    with _data_dir_held(settings.server.data_dir):
        listener = _bind(settings.server)
        _say_hello(settings, listener)
        # uvicorn ends with raising the signal that stopped it once more; an orderly end is exit code 0 all the same.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, listener, read_again))


async def _run(settings: HearthConfig, listener: socket.socket, read_config: Callable[[], HearthConfig]) -> None:
    weights = WeightsStore(settings.server.weights_dir, cache_dir())
    app = build_app(settings, weights, holds_data_dir=True, read_config=read_config)
    uvicorn_config = uvicorn.Config(
        app,
        http="httptools",
        log_config=None,
        access_log=False,  # the API writes one line per request itself
        server_header=False,
        timeout_graceful_shutdown=math.ceil(DRAIN_S),  # then it cuts connections; by now only those that send slowly
    )
    with _reloading_on_hangup(app.state.reload):
        await _Server(uvicorn_config, end_requests=app.state.supervisor.stop).serve(sockets=[listener])


@contextmanager
def _reloading_on_hangup(reload: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """Put models.yaml in force at each SIGHUP; its report, or what is wrong with the file, is in the log."""
    running: set[asyncio.Task[None]] = set()

    async def report() -> None:
        try:
            await reload()
        except HearthError:
            pass  # logged where it was found
        except Exception:
            logger.exception("models.yaml could not be reloaded")

    def begin() -> None:
        task = asyncio.create_task(report(), name="reload")
        running.add(task)
        task.add_done_callback(running.discard)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in running:
            task.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server, but what outlasts the drain, or a second signal, ends with an error instead of being cut.

    Args:
        end_requests: Ends all requests at once; called at most once.
    """

    def __init__(self, config: uvicorn.Config, *, end_requests: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._end_requests = end_requests
        self._is_hurried = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at a second signal, stop draining; leave a third, to be rid of all at once, to uvicorn."""
        if self.should_exit and not self._is_hurried.is_set():
            self._is_hurried.set()
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self._end_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_in_time(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_hurried.wait(), DRAIN_S - _LAST_WORDS_S)
        await self._end_requests()


@contextmanager
def _data_dir_held(folder: Path) -> Iterator[None]:
    """Lock the data directory before anything heavy starts; leave with one line if another server has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(data_lock(folder))
        except StorageError as exc:
            fail(exc.message)
        yield


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
    typer.echo(f"  API        {url}/docs")
    for model in settings.models:
        when = "loads at its first request" if model.lazy else "loading"
        typer.echo(f"  {model.kind:<9}  {model.id}  ({when})")
