"""Commands that talk to a running server share this: where it is, and what to say when it does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from server.cli.settings import fail, load_or_exit

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Server to talk to [default: host and port of models.yaml]", show_default=False),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Model id or alias [default: the first of its kind]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's JSON answer.")]

JsonObject = dict[str, Any]

_TIMEOUT = httpx.Timeout(10.0, read=None)  # a long answer may take its time; the server ends every request


class ServerClient:
    """Speaks to one server; every failure is one line on stderr and exit code 1."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)

    def get(self, path: str, *, expect: tuple[int, ...] = (200,)) -> JsonObject:
        with self._explained():
            response = self._http.get(path)
            return _decoded(response, expect)

    def post(self, path: str, body: Mapping[str, object]) -> JsonObject:
        with self._explained():
            return _decoded(self._http.post(path, json=body), (200,))

    def stream(self, path: str, body: Mapping[str, object]) -> Iterator[JsonObject]:
        """Yield the JSON of each server-sent event."""
        with self._explained(), self._http.stream("POST", path, json=body) as response:
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
        except httpx.ConnectError:
            fail(f"no server answers at {self._url}; start one with `hearth serve`")
        except httpx.HTTPError as exc:
            fail(f"the server at {self._url} broke off: {exc or type(exc).__name__}")


def connect(url: str | None, config: Path | None) -> ServerClient:
    """A client for the server at `url`, or where models.yaml says that it listens."""
    if url is None:
        settings = load_or_exit(config, require_files=False).config.server
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104  # compared, not bound
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    return ServerClient(url)


def _decoded(response: httpx.Response, expect: tuple[int, ...]) -> JsonObject:
    try:
        body: JsonObject = response.json()
    except json.JSONDecodeError:
        fail(f"status {response.status_code} without JSON; is {response.url.netloc.decode()} a Hearth server?")
    if response.status_code not in expect:
        error = body.get("error")
        fail(error["message"] if isinstance(error, dict) else f"status {response.status_code}: {body}")
    return body
