"""Commands that talk to a running server share this: where it is, and what to say when it does not answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO

import httpx
import typer

from server.cli.exit_codes import ExitCode
from server.cli.settings import fail, load_or_exit

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Server to talk to [default: host and port of models.yaml]", show_default=False),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="Key for the server, which others see in the list of processes [default: $HEARTH_API_KEY, or what is in "
        "the file $HEARTH_API_KEY_FILE]",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Model id or alias [default: the first of its kind]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's JSON answer.")]

JsonObject = dict[str, Any]

_TIMEOUT = httpx.Timeout(10.0, read=None)  # a long answer may take its time; the server ends every request


class ServerFailure(Exception):
    """The server could not be asked, or did not do what it was asked; the message says why."""


class Unreachable(ServerFailure):
    """There was no answer: nobody listens, or the connection broke."""


class Refused(ServerFailure):
    """The answer was an error, or the request could not be made; `status` is HTTP's, or 0."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerClient:
    """Speaks to one server. Every failure is one line on stderr and exit code 1, but for the methods named `try_`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT, headers=headers)

    def get(self, path: str, *, expect: tuple[int, ...] = (200,)) -> JsonObject:
        with _ending_the_command():
            return self.try_request("GET", path, expect=expect)

    def post(self, path: str, body: Mapping[str, object], *, expect: tuple[int, ...] = (200,)) -> JsonObject:
        with _ending_the_command():
            return self.try_request("POST", path, body, expect=expect)

    def try_request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        expect: tuple[int, ...] = (200,),
    ) -> JsonObject:
        """Send one request with a JSON body, if any; raises ServerFailure."""
        with self._explained():
            return _decoded(self._http.request(method, path, json=body, params=query), expect)

    def try_list(self, path: str, query: Mapping[str, str | int] | None = None) -> Iterator[JsonObject]:
        """Yield all items of a list, page after page, oldest first; raises ServerFailure."""
        wanted: dict[str, str | int] = {"limit": 100, "order": "asc", **(query or {})}
        while True:
            page = self.try_request("GET", path, query=wanted)
            yield from page["data"]
            if not page["has_more"]:
                return
            wanted["after"] = page["last_id"]

    def try_upload(
        self,
        file: BinaryIO,
        filename: str,
        *,
        path: str = "/v1/files",
        fields: Mapping[str, str] = MappingProxyType({"purpose": "assistants"}),
    ) -> JsonObject:
        """Upload a file, by default for use in vector stores; raises ServerFailure."""
        with self._explained():
            return _decoded(self._http.post(path, files={"file": (filename, file)}, data=dict(fields)), (200,))

    def try_download(self, path: str, target: BinaryIO) -> None:
        """Write an answer to a file as it arrives; raises ServerFailure, also when it ends too early."""
        with self._explained(), self._http.stream("GET", path) as response:
            if response.status_code != 200:
                response.read()
                _decoded(response, (200,))
            for part in response.iter_bytes():
                target.write(part)

    def stream(self, path: str, body: Mapping[str, object]) -> Iterator[JsonObject]:
        """Yield the JSON of each server-sent event."""
        with _ending_the_command(), self._explained(), self._http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
                _decoded(response, (200,))
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event: JsonObject = json.loads(line[6:])
                    if "error" in event:
                        fail(event["error"]["message"])
                    yield event

    def model_of(self, kind: str, name: str | None) -> str:
        """The model to use: as asked, or the first of its kind."""
        if name is not None:
            return name
        models = [model for model in self.get("/v1/models")["data"] if model["kind"] == kind]
        if not models:
            fail(f"the server at {self._url} has no {kind} model")
        return str(models[0]["id"])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as exc:
            raise Unreachable(f"no server answers at {self._url}; start one with `hearth serve`") from exc
        except httpx.LocalProtocolError as exc:
            raise Refused(f"it changed while it was sent: {exc}", status=0) from exc
        except httpx.HTTPError as exc:
            raise Unreachable(f"the server at {self._url} broke off: {exc or type(exc).__name__}") from exc


def connect(url: str | None, config: Path | None, api_key: str | None = None) -> ServerClient:
    """A client for the server at `url`, or where models.yaml says that it listens; with a key, if there is one."""
    return ServerClient(server_url(config) if url is None else url, key_or_exit(api_key))


def server_url(config: Path | None) -> str:
    """Where models.yaml says that the server listens."""
    settings = load_or_exit(config, require_files=False).config.server
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104  # compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def key_or_exit(api_key: str | None) -> str | None:
    """The key that was given, or the environment's; leaves with one line if it cannot be one."""
    api_key = api_key or _key_of_environment()
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        fail("the API key has characters that no key has; see --api-key and HEARTH_API_KEY", code=ExitCode.WRONG_INPUT)
    return api_key


def _key_of_environment() -> str | None:
    if key := os.environ.get("HEARTH_API_KEY"):
        return key
    if path := os.environ.get("HEARTH_API_KEY_FILE"):
        try:
            return Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            fail(f"HEARTH_API_KEY_FILE {path} cannot be read: {exc}", code=ExitCode.WRONG_INPUT)
    return None


@contextmanager
def _ending_the_command() -> Iterator[None]:
    try:
        yield
    except ServerFailure as exc:
        fail(str(exc))


def _decoded(response: httpx.Response, expect: tuple[int, ...]) -> JsonObject:
    status = response.status_code
    try:
        body: JsonObject = response.json()
    except json.JSONDecodeError as exc:
        message = f"status {status} without JSON; is {response.url.netloc.decode()} a Hearth server?"
        raise Refused(message, status=status) from exc
    if status not in expect:
        error = body.get("error")
        message = error["message"] if isinstance(error, dict) else f"status {status}: {body}"
        raise Refused(message, status=status)
    return body
