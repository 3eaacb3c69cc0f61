from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server import faults
from server.errors import ConfigError
from server.storage.database import Database
from server.storage.schema import MIGRATIONS

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.arm({})


def reach(point: str, times: int) -> list[bool]:
    """Whether something went wrong, each time."""

    def fails() -> bool:
        try:
            faults.reach(point)
        except OSError:
            return True
        return False

    return [fails() for _ in range(times)]


@pytest.mark.parametrize("environ", [{}, {"FAULTS": ""}, {"FAULTS": " , "}])
def test_nothing_fails_unless_it_is_told_to(environ: dict[str, str]) -> None:
    faults.arm(environ)

    assert not any(any(reach(point, 3)) for point in faults.POINTS)


def test_a_point_fails_at_its_number_and_not_again() -> None:
    faults.arm({"FAULTS": "db.commit@3=eio"})

    assert reach("db.commit", 5) == [False, False, True, False, False]
    assert not any(reach("worker.load", 5))


def test_without_a_number_it_is_the_first_time() -> None:
    faults.arm({"FAULTS": "db.commit=enospc, db.commit@2=eio"})

    assert reach("db.commit", 3) == [True, True, False]


@pytest.mark.parametrize(("model", "fails"), [("small", True), ("large", False), (None, False)])
def test_a_fault_may_be_for_one_model(model: str | None, *, fails: bool) -> None:
    faults.arm({"FAULTS": "worker.load:small=eio"}, model=model)

    assert reach("worker.load", 1) == [fails]


@pytest.mark.parametrize("entry", ["x", "db.commit", "db.commit@0=eio", "db.rollback=eio", "db.commit=explode", "=eio"])
def test_what_cannot_be_read_is_an_error(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"FAULTS has .*; expected point\[:model\]\[@number\]=action"):
        faults.arm({"FAULTS": entry})


@pytest.mark.parametrize(("action", "killed_by"), [("abort", signal.SIGABRT), ("kill", signal.SIGKILL)])
def test_a_process_can_be_made_to_die(action: str, killed_by: signal.Signals) -> None:
    program = "import os; from server import faults; faults.arm(os.environ); faults.reach('worker.decode')"
    environ = {**os.environ, "FAULTS": f"worker.decode={action}"}

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, check=False)

    assert done.returncode == -killed_by


def test_a_process_can_be_left_without_memory() -> None:
    program = (
        "import os; from server import faults; faults.arm(os.environ); small = bytes(1 << 20)\n"
        "faults.reach('worker.load')\ntry:\n    bytes(1 << 30)\nexcept MemoryError:\n    print('none')"
    )
    environ = {**os.environ, "FAULTS": "worker.load=oom"}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert done.stdout == "none\n", done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path / "d.sqlite", MIGRATIONS)
    yield opened
    opened.close()


@pytest.mark.parametrize(("action", "error"), [("eio", "StorageError"), ("enospc", "StorageFull")])
async def test_a_transaction_that_cannot_be_committed_changes_nothing(
    database: Database, action: str, error: str
) -> None:
    """What was promised to nobody is not there; the next transaction is as good as any."""
    await database.write(lambda db: db.execute("CREATE TABLE t (n)").close())
    insert: Callable[..., None] = lambda db: db.execute("INSERT INTO t VALUES (1)").close()  # noqa: E731
    faults.arm({"FAULTS": f"db.commit={action}"})

    with pytest.raises(Exception, match=r"disk|data directory") as caught:
        await database.write(insert)

    assert type(caught.value).__name__ == error
    assert await database.read(lambda db: db.execute("SELECT count(*) FROM t").fetchall()) == [(0,)]
    await database.write(insert)
    assert await database.read(lambda db: db.execute("SELECT count(*) FROM t").fetchall()) == [(1,)]


def test_memory_is_taken_and_given_back_where_there_is_enough(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faults, "MAX_TAKEN_BYTES", 32 << 20)
    faults.arm({"FAULTS": "worker.decode=hog"})

    faults.reach("worker.decode")

    assert caplog.records[-1].__dict__["num_bytes"] == 32 << 20
