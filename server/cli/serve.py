"""`hearth serve`: run the server until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import typer
import uvicorn
import uvloop

import server
from server import faults
from server.access.policy import has_keys, is_loopback
from server.api.middleware.drain import Drain
from server.api.routes import HEALTH_PATHS, UPLOAD_PATHS
from server.app import build_app
from server.cli.first_process import leave_first_process
from server.cli.http_protocol import ConnectionBounds, HttpProtocol
from server.cli.sd_notify import ServiceManager
from server.cli.settings import ConfigOption, HostOption, PortOption, cache_dir, fail, load_or_exit
from server.config.load import CLIENT_VARIABLES, load_config
from server.config.schema import HearthConfig
from server.config.server_section import Limits, ServerSettings
from server.errors import ConfigError, HearthError, StorageError
from server.models.weights import WeightsStore
from server.services.reloading import Reloading
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.telemetry.logs import configure_logs, resolve_format

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
"""What is left of `drain_s` to those that take longer, for an answer or an event that says so."""

_KEEP_ALIVE_S = 5
"""How long a connection may stay open without a request."""

MAX_OPEN_FILES = 65536
"""More are not asked of the operating system: connections, `max_connections` of them, and a few hundred besides."""

_FILES_BESIDES = 256
"""Open files of the server that are no connections: pipes and sockets of workers, database, uploads, what is parsed."""

_BACKLOG = 2048


def serve(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    weights_dir: Annotated[Path | None, typer.Option("--weights-dir", help="Folder for model files.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    allow_insecure: Annotated[
        bool,
        typer.Option("--allow-insecure", help="Serve everybody who reaches the server, although there are no keys."),
    ] = False,
) -> None:
    """Serve the models of models.yaml over HTTP.

    Models load in the background: the server answers at once, and each model as soon as it is ready.
    """
    leave_first_process()
    flags = {
        "host": host,
        "port": port,
        "weights_dir": weights_dir,
        "log_level": log_level,
        "allow_insecure": allow_insecure or None,
    }
    loaded = load_or_exit(config, flags=flags, require_files=False)
    settings = loaded.config

    def read_again() -> HearthConfig:
        return load_config(loaded.path, flags=flags, environ=os.environ, require_files=False).config

    configure_logs(settings.server.log_level, resolve_format(settings.server.log_format))
    for name in CLIENT_VARIABLES:  # not for us, and even less for the processes that we start
        os.environ.pop(name, None)
    _arm_faults()
    with _data_dir_held(settings.server.data_dir):
        _check_exposure(settings.server)
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
        http=cast(Any, partial(HttpProtocol, bounds=_bounds(settings.server.limits))),
        ws="none",
        log_config=None,
        access_log=False,  # the API writes one line per request itself
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(_LAST_WORDS_S),  # then it cuts connections, those that send slowly
    )
    server = _Server(
        uvicorn_config,
        settings=settings.server,
        drain=app.state.drain,
        reloading=app.state.reloading,
        end_requests=app.state.supervisor.stop,
        manager=ServiceManager.of(os.environ),
    )
    with _reloading_on_hangup(server.reload):
        await server.serve(sockets=[listener])


@contextmanager
def _reloading_on_hangup(reload: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Call `reload` at each SIGHUP."""
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


def _bounds(limits: Limits) -> ConnectionBounds:
    return ConnectionBounds(
        receive_timeout_s=limits.receive_timeout_s,
        max_connections=min(limits.max_connections, max(1, _allow_open_files() - _FILES_BESIDES)),
        upload_paths=UPLOAD_PATHS,
        always_open=HEALTH_PATHS,
    )


def _allow_open_files() -> int:
    """Raise the limit of open files as far as it may be; return it. By default it is 1024, for programs of old."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


class _Server(uvicorn.Server):
    """uvicorn's server, which drains before it shuts down, and ends with an error what outlasts the drain.

    Args:
        end_requests: Ends all requests at once; called at most once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        settings: ServerSettings,
        drain: Drain,
        reloading: Reloading,
        end_requests: Callable[[], Awaitable[None]],
        manager: ServiceManager,
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._drain = drain
        self._reloading = reloading
        self._end_requests = end_requests
        self._manager = manager
        self._is_hurried = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at a second signal, stop draining; leave a third, to be rid of all at once, to uvicorn."""
        if self.should_exit and not self._is_hurried.is_set():
            self._is_hurried.set()
        else:
            super().handle_exit(sig, frame)

    async def reload(self) -> None:
        """Put models.yaml in force as it is now; its report, or what is wrong with it, is in the log."""
        if self._drain.has_begun:
            logger.warning("models.yaml is not reloaded: the server is stopping")
            return
        self._manager.say_reloading()
        try:
            await self._reloading.reload()
        finally:
            if not self._drain.has_begun:
                self._manager.say_ready()

    async def main_loop(self) -> None:
        self._manager.say_ready()
        feeding = asyncio.create_task(self._manager.keep_content())
        try:
            await super().main_loop()
            await self._drain_requests()
        finally:
            feeding.cancel()

    async def _drain_requests(self) -> None:
        """Let what runs come to its end, as long as it may, while what comes is served, and then refused.

        The door stays open meanwhile: a refused connection tells nobody why, nor when to come back.
        """
        self._manager.say_stopping()
        self._drain.has_begun = True
        self._reloading.close()
        await self._unless_hurried(asyncio.sleep(self._settings.drain_delay_s), timeout_s=None)
        self._drain.is_refusing = True
        if running := set(self.server_state.tasks):
            left_s = max(0.0, self._settings.drain_s - _LAST_WORDS_S)
            await self._unless_hurried(asyncio.wait(running), timeout_s=left_s)
        await self._end_requests()

    async def _unless_hurried(self, work: Coroutine[Any, Any, object], *, timeout_s: float | None) -> None:
        """Await `work`, but no longer than until a second signal."""
        working, hurrying = asyncio.create_task(work), asyncio.create_task(self._is_hurried.wait())
        await asyncio.wait((working, hurrying), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        hurrying.cancel()


def _arm_faults() -> None:
    try:
        faults.arm(os.environ)
    except ConfigError as exc:
        fail(exc.message)


@contextmanager
def _data_dir_held(folder: Path) -> Iterator[None]:
    """Lock the data directory before anything heavy starts; leave with one line if another server has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(data_lock(folder))
        except StorageError as exc:
            fail(exc.message)
        yield


def _check_exposure(settings: ServerSettings) -> None:
    """Leave with one line where others could reach a server that lets everybody in."""
    if is_loopback(settings.host):
        return
    try:
        is_keyed = has_keys(DataLayout(settings.data_dir).accounts)
    except StorageError as exc:
        fail(exc.message)
    if is_keyed:
        return
    if not settings.allow_insecure:
        fail(
            f"{settings.host} may be reached by others, and there are no keys; make one with `hearth key create`, bind "
            "127.0.0.1, or let everybody in with --allow-insecure"
        )
    message = f"everybody who reaches {settings.host}:{settings.port} may use this server: there are no keys"
    typer.secho(f"warning: {message}", fg="yellow", bold=True, err=True)
    logger.warning("everybody is let in: there are no keys", extra={"host": settings.host})


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
        fail(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; {remedy}")
    return listener


def _say_hello(settings: HearthConfig, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    typer.echo(f"Hearth {server.__version__} listens on {url} (Ctrl-C stops it)")
    typer.echo(f"  API        {url}/docs")
    for model in settings.models:
        when = "loads at its first request" if model.lazy else "loading"
        typer.echo(f"  {model.kind:<9}  {model.id}  ({when})")
