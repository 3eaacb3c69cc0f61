from __future__ import annotations

import pytest

from server.errors import ConfigError
from server.loadgen.target import parse_target


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://box:8000/v1", "http://box:8000/v1"),
        ("http://box:8000", "http://box:8000/v1"),
        ("box:8000", "http://box:8000/v1"),
        ("https://api.example/openai/v1/", "https://api.example:443/openai/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_a_base_url_is_what_sdks_take(typed: str, url: str) -> None:
    assert parse_target(typed).url == url


@pytest.mark.parametrize(
    "typed",
    [
        "ftp://box",
        "http://",
        "http://box:eighty",
        "http://box:99999",
        "http://user:secret@box",
        "http://box/v1?key=1",
        "http://box/v1 HTTP/1.1",
    ],
)
def test_what_is_no_base_url_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError):
        parse_target(typed)


@pytest.mark.parametrize("key", ["two words", "line\r\nX-Evil: 1", "schlüssel"])
def test_a_key_cannot_smuggle_headers(key: str) -> None:
    with pytest.raises(ConfigError, match="no header can carry"):
        parse_target("http://box", api_key=key)


def test_a_key_is_sent_and_never_shown() -> None:
    target = parse_target("http://box", api_key="sk-secret")

    assert b"Authorization: Bearer sk-secret\r\n" in target.request("/rerank", b"{}", is_kept=True)
    assert "sk-secret" not in repr(target) + target.url


def test_the_path_is_below_the_base() -> None:
    sent = parse_target("http://box:1/a/b").request("/rerank", b"{}", is_kept=False)

    assert sent.startswith(b"POST /a/b/rerank HTTP/1.1\r\nHost: box:1\r\n")
    assert sent.endswith(b"Connection: close\r\n\r\n{}")
