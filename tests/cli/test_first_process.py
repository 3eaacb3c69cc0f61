"""In a process namespace of its own, where it is the first one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys, time
from server.cli.first_process import leave_first_process

leave_first_process()
assert os.getpid() != 1
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
orphan_pid, say = os.pipe()
child = os.fork()
if child == 0:
    orphan = os.fork()
    if orphan == 0:
        time.sleep(0.2)  # its parent shall be dead by then
        os._exit(0)
    os.write(say, str(orphan).encode())
    os._exit(0)
os.waitpid(child, 0)
orphan = int(os.read(orphan_pid, 20))
for _ in range(500):
    try:
        os.kill(orphan, 0)
    except ProcessLookupError:
        break
    time.sleep(0.01)
else:
    sys.exit("the orphan is a zombie")
print("buried", flush=True)
signal.pause()
"""


def in_namespace(*command: str) -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", *command]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    can = shutil.which("unshare") and subprocess.run(in_namespace("true"), capture_output=True, check=False)
    if not can or can.returncode:
        pytest.skip("this system lets nobody make process namespaces")


def test_it_buries_orphans_passes_signals_on_and_ends_as_the_server_does() -> None:
    with subprocess.Popen(
        in_namespace(sys.executable, "-c", PROGRAM), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "buried\n"
        (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()

        subprocess.run(["kill", f"-{int(signal.SIGTERM)}", first], check=True)

        assert outer.wait(10) == 7


def test_elsewhere_it_changes_nothing() -> None:
    program = "import os; from server.cli.first_process import leave_first_process as leave\n"
    program += "pid = os.getpid(); leave(); print(pid == os.getpid())"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.stdout == "True\n"
