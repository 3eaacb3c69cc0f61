"""The scripts in examples/ do what they say, with the real openai SDK against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import REPOSITORY

pytestmark = pytest.mark.integration

KITCHEN = "# Bread\n\n## Dough\n\nKnead the dough for ten minutes, then let it rise for an hour in a warm place.\n"
GARDEN = "# Tomatoes\n\nTomatoes want full sun and water at the roots, never on the leaves.\n"


def run(server: ServerProcess, script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / script, *arguments],
        env={**os.environ, "OPENAI_BASE_URL": f"{server.url}/v1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_life_of_a_vector_store(live_server: ServerProcess, http: httpx.Client, tmp_path: Path) -> None:
    for name, text in (("kitchen.md", KITCHEN), ("garden.md", GARDEN), ("empty.txt", "")):
        (tmp_path / name).write_text(text)
    before = {kind: http.get(f"/v1/{kind}").json()["data"] for kind in ("files", "vector_stores")}

    printed = run(
        live_server, "vector_store.py", "How long do I knead the dough?",
        *(str(tmp_path / name) for name in ("kitchen.md", "garden.md", "empty.txt")),
    )  # fmt: skip

    lines = printed.splitlines()
    assert lines[0] == "2 of 3 files are in the store"
    assert lines[1].startswith("empty.txt: ")
    assert lines[2].endswith("kitchen.md: Bread > Dough")
    assert "".join(lines[4:-1])  # an answer; whether so small a model cites its source is for it to say
    assert lines[-1] == "store deleted: True"
    assert {kind: http.get(f"/v1/{kind}").json()["data"] for kind in before} == before
