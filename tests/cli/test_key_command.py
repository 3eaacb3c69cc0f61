from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from server.access.api_key import digest_of
from server.cli.main import app

MODELS = """
models:
  - {id: echo, kind: chat, backend: script, aliases: [gpt-4o], script: [{text: hi}]}
  - {id: other, kind: chat, backend: script, script: [{text: hi}]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text(MODELS)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["key", *arguments])


def made(*arguments: str) -> dict[str, Any]:
    result = run("create", "--json", *arguments)
    assert result.exit_code == 0, result.output
    key: dict[str, Any] = json.loads(result.stdout)
    return key


def listed(*arguments: str) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = json.loads(run("list", "--json", *arguments).stdout)
    return keys


def test_the_key_alone_is_printed_and_only_its_digest_kept(folder: Path) -> None:
    result = run("create", "for tests")

    key = result.stdout.strip()
    with closing(sqlite3.connect(folder / "data" / "accounts.sqlite")) as db:
        rows = db.execute("SELECT digest, name, tenant FROM keys").fetchall()
    assert key.startswith("hk-") and "\n" not in key
    assert rows == [(digest_of(key), "for tests", "default")]
    assert "tenant default, inference, rag" in result.stderr


def test_a_key_may_what_was_said(folder: Path) -> None:
    key = made(
        *("--tenant", "bakery", "--scopes", "admin,metrics", "--models", "gpt-4o", "--expires", "30d"),
        *("--limits", "rpm=60,tpm=100000", "--limits", "concurrent=4,tokens_per_day=5000000,cost_per_day=2.5,weight=2"),
    )

    assert (key["tenant"], key["scopes"], key["models"]) == ("bakery", ["admin", "metrics"], ["echo"])
    assert key["limits"] == {
        **{"requests_per_minute": 60, "tokens_per_minute": 100_000, "concurrent_requests": 4},
        **{"tokens_per_day": 5_000_000, "cost_per_day": 2.5, "weight": 2.0},
    }
    assert key["expires_at"] == pytest.approx(time.time() + 30 * 86400, abs=60)
    [shown] = listed()
    assert shown == {name: value for name, value in key.items() if name != "key"}


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--tenant", "a b", "tenant is 'a b'"),
        ("--tenant", "", "tenant is ''"),
        ("--scopes", "inferense", "did you mean 'inference'?"),
        ("--scopes", "", "a key needs a scope"),
        ("--models", "eco", "did you mean 'echo'?"),
        ("--models", ",", "leave --models out"),
        ("--limits", "rpm=0", "limit rpm is '0'; expected a whole number above 0"),
        ("--limits", "rpm=1.5", "limit rpm is '1.5'"),
        ("--limits", "weight=nan", "limit weight is 'nan'; expected a number above 0"),
        ("--limits", "rps=5", "limit 'rps' does not exist"),
        ("--expires", "soon", "expiry is 'soon'"),
        ("--expires", "2001-01-01", "which is over"),
    ],
)
def test_what_is_wrong_is_said_and_no_key_made(folder: Path, option: str, value: str, complaint: str) -> None:
    result = run("create", option, value)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (folder / "data").exists()


def test_revoked_keys_are_listed_only_if_asked_for(folder: Path) -> None:
    first, second = made("--tenant", "a"), made("--tenant", "b")

    revoked = run("revoke", first["id"])

    assert (revoked.exit_code, first["id"] in revoked.stdout) == (0, True)
    assert [key["id"] for key in listed()] == [second["id"]]
    assert [key["state"] for key in listed("--all")] == ["revoked", "active"]


def test_all_keys_are_revoked_or_none(folder: Path) -> None:
    key = made()

    result = run("revoke", key["id"], "key_nowhere")

    assert result.exit_code == 1
    assert "there is no key 'key_nowhere'" in result.stderr
    assert [each["state"] for each in listed()] == ["active"]


def test_a_rotated_key_may_what_the_old_one_could(folder: Path) -> None:
    old = made("--tenant", "bakery", "--scopes", "rag", "--models", "other", "--limits", "rpm=5")

    new = json.loads(run("rotate", old["id"], "--json").stdout)

    assert new["key"] != old["key"]
    assert all(new[name] == old[name] for name in ("tenant", "scopes", "models", "limits", "expires_at"))
    assert [key["id"] for key in listed()] == [new["id"]]


def test_the_old_key_is_good_for_a_while_if_that_is_wanted(folder: Path) -> None:
    old = made()

    run("rotate", old["id"], "--keep-old", "24h")

    [kept, _new] = listed()
    assert kept["id"] == old["id"]
    assert kept["expires_at"] == pytest.approx(time.time() + 86400, abs=60)


def test_what_has_ended_is_not_rotated(folder: Path) -> None:
    key = made()
    run("revoke", key["id"])

    result = run("rotate", key["id"])

    assert result.exit_code == 1
    assert "is revoked; make a new one" in result.stderr
    assert len(listed("--all")) == 1


def test_people_see_a_table(folder: Path) -> None:
    key = made("--limits", "rpm=5,weight=2")

    shown = run("list").stdout

    assert key["key"] not in shown
    assert key["hint"] in shown and "rpm=5" in shown


def test_a_database_that_cannot_be_opened_is_one_line(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "accounts.sqlite").write_bytes(b"not a database" * 1000)

    result = run("list")

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "the database is damaged" in result.stderr
