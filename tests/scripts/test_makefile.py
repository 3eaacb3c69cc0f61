"""`make serve` with stand-ins for set-up and `hearth`: what is called with what, and when it goes on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(MAKEFILE, tmp_path)
    for name, body in (("scripts/setup", ""), (".venv/bin/hearth", 'echo "$@"\n[ $1 != pull ] || exit $PULL_EXIT')):
        script = tmp_path / name
        script.parent.mkdir(parents=True)
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
    return tmp_path


def make_serve(clone: Path, *variables: str, pull_exit: int = 0) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PULL_EXIT": str(pull_exit)}
    command = ["make", "serve", *variables]
    return subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, check=False)


def test_another_configuration_is_pulled_and_served(clone: Path) -> None:
    done = make_serve(clone, "CONFIG=a b.yaml", "ARGS=--port 1")

    assert done.stdout.splitlines() == ["pull --config a b.yaml", "serve --config a b.yaml --port 1"]


def test_weights_that_cannot_be_had_do_not_stop_the_others(clone: Path) -> None:
    done = make_serve(clone, pull_exit=1)

    assert (done.returncode, done.stdout.splitlines()) == (0, ["pull", "serve"])


def test_a_wrong_configuration_does(clone: Path) -> None:
    done = make_serve(clone, pull_exit=2)

    assert (done.returncode != 0, done.stdout.splitlines()) == (True, ["pull"])
