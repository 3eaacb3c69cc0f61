"""What commands say to a server, and what becomes of its answers."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import typer

from server.cli.client import Refused, ServerClient, Unreachable
from server.cli.client import connect as to_server
from server.cli.printable import printable
from server.cli.stores import find_store
from server.config.load import CLIENT_VARIABLES

Handler = Callable[[httpx.Request], httpx.Response]
Connect = Callable[[Handler], ServerClient]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A client of a server that is a function."""

    def to(handler: Handler) -> ServerClient:
        http = functools.partial(httpx.Client, transport=httpx.MockTransport(handler))
        monkeypatch.setattr("server.cli.client.httpx.Client", http)
        return ServerClient("http://test")

    return to


def numbered(request: httpx.Request) -> httpx.Response:
    """A list of the numbers from 0 to 249, as long as a page may be."""
    query = request.url.params
    first = int(query.get("after", -1)) + 1
    data = [{"id": str(number)} for number in range(first, min(250, first + int(query["limit"])))]
    return httpx.Response(200, json={"data": data, "last_id": data[-1]["id"], "has_more": data[-1]["id"] != "249"})


def test_a_list_is_read_page_by_page(connect: Connect) -> None:
    items = connect(numbered).try_list("/v1/things")

    assert [item["id"] for item in items] == [str(number) for number in range(250)]


def test_an_upload_has_the_name_it_is_given(connect: Connect) -> None:
    seen: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request.read())
        return httpx.Response(200, json={"id": "file-1"})

    connect(take).try_upload(io.BytesIO(b"hello"), "a/b.md")

    assert b'name="file"; filename="a/b.md"' in seen[0] and b"\r\n\r\nhello\r\n" in seen[0]
    assert b'name="purpose"\r\n\r\nassistants' in seen[0]


def test_a_refusal_carries_message_and_status(connect: Connect) -> None:
    client = connect(lambda _: httpx.Response(413, json={"error": {"message": "too large"}}))

    with pytest.raises(Refused, match="too large") as refused:
        client.try_request("GET", "/v1/things")

    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.RemoteProtocolError("cut off"), Unreachable),
        (httpx.LocalProtocolError("Too much data for declared Content-Length"), Refused),
    ],
)
def test_a_connection_that_fails_is_told_from_a_request_that_does(
    connect: Connect, error: httpx.HTTPError, expected: type[Exception]
) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(expected):
        connect(fail).try_request("GET", "/v1/things")


def test_what_a_command_asks_for_ends_it_in_one_line(connect: Connect, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect(lambda _: httpx.Response(404, json={"error": {"message": "no such thing"}}))

    with pytest.raises(typer.Exit):
        client.get("/v1/things")

    assert capsys.readouterr().err == "error: no such thing\n"


def stores(*named: tuple[str, str]) -> Handler:
    data = [{"id": id_, "name": name, "status": "completed"} for id_, name in named]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/vector_stores":
            return httpx.Response(200, json={"data": data, "has_more": False})
        found = [store for store in data if request.url.path.endswith(f"/{store['id']}")]
        return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={"error": {"message": "no"}})

    return answer


def test_a_store_is_found_by_name_or_id(connect: Connect) -> None:
    client = connect(stores(("vs_1", "notes"), ("vs_2", "vs_code manual")))

    assert [find_store(client, name) for name in ("notes", "vs_2", "vs_code manual", "none")] == [
        "vs_1",
        "vs_2",
        "vs_2",
        None,
    ]


def test_a_name_of_two_stores_is_not_enough(connect: Connect, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect(stores(("vs_1", "notes"), ("vs_2", "notes")))

    with pytest.raises(typer.Exit):
        find_store(client, "notes")

    assert "vs_1, vs_2" in capsys.readouterr().err


def test_a_terminal_gets_no_control_characters() -> None:
    text = json.loads('"a\\u001b[2Jb\\nc\\u202ed"')

    assert printable(text) == "a\ufffd[2Jb c\ufffdd"


# ---- keys


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        (None, {}, None),
        ("hk-option", {"HEARTH_API_KEY": "hk-variable"}, "Bearer hk-option"),
        (None, {"HEARTH_API_KEY": "hk-variable", "HEARTH_API_KEY_FILE": "nowhere"}, "Bearer hk-variable"),
        (None, {"HEARTH_API_KEY_FILE": "key.txt"}, "Bearer hk-file"),
    ],
)
def test_the_key_is_what_was_said_last(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: str | None,
    environ: dict[str, str],
    expected: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.txt").write_text("hk-file\n")
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    seen: list[str | None] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    http = functools.partial(httpx.Client, transport=httpx.MockTransport(note))
    monkeypatch.setattr("server.cli.client.httpx.Client", http)

    to_server("http://test", None, option).get("/v1/models")

    assert seen == [expected]


@pytest.mark.parametrize("environ", [{"HEARTH_API_KEY_FILE": "nowhere"}, {"HEARTH_API_KEY": "hk-\u00e9"}])
def test_a_key_that_cannot_be_had_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(typer.Exit):
        to_server("http://test", None)

    assert "HEARTH_API_KEY" in capsys.readouterr().err
