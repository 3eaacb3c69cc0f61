from __future__ import annotations

from pathlib import Path

import pytest

from server.models.cache_folder import cache_folder


def test_the_cache_follows_xdg_and_else_lies_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")

    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/hearth")
    assert cache_folder({"XDG_CACHE_HOME": ""}) == cache_folder({}) == Path("/home/someone/.cache/hearth")
