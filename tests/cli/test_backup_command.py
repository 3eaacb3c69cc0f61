from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli.main import app
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.storage.database import Database


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a models.yaml, and a data directory that was used."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text("models: [{id: echo, kind: chat, backend: script, script: [{text: hi}]}]\n")
    Database.open(DataLayout(tmp_path / "data").database).close()
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_backup_is_made_and_restored(folder: Path) -> None:
    made = run("backup", "backup")
    restored = run("restore", "backup", "--data-dir", "other")

    assert (made.exit_code, restored.exit_code) == (0, 0), (made.output, restored.output)
    assert "backup: 0 files and the database" in made.stdout
    assert (folder / "other" / "hearth.sqlite").exists()


def test_what_is_replaced_is_told(folder: Path) -> None:
    run("backup", "backup")

    refused, done = run("restore", "backup"), run("restore", "backup", "--replace")

    assert refused.exit_code == 1 and "is not empty" in refused.stderr
    assert done.exit_code == 0
    assert f"what was there before is in {folder / 'data' / 'replaced-'}" in done.stdout


def test_a_data_directory_in_use_is_refused(folder: Path) -> None:
    run("backup", "backup")
    with data_lock(folder / "data"):
        done = run("restore", "backup", "--replace")

    assert done.exit_code == 1 and "is in use by another server" in done.stderr


def test_a_wrong_folder_is_one_line_and_exit_code_1() -> None:
    done = run("backup", "backup", "--data-dir", "nowhere")

    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: there is no database in nowhere")
