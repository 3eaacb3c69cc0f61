"""What processes hold, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
import sys

from server.workers.process_memory import ProcessMemory, measure_memory

HOLD = "import sys; held = bytearray(64 << 20); print('ready', flush=True); sys.stdin.read()"
WITH_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"


def test_a_process_counts_with_its_children() -> None:
    held = 64 << 20
    with subprocess.Popen([sys.executable, "-c", WITH_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        parent.stdout.readline()

        found = measure_memory(parent.pid)

        parent.stdin.close()
    assert held < found.private <= found.total < held + (64 << 20)


def test_a_process_that_is_gone_holds_nothing() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()

    assert measure_memory(done.pid) == ProcessMemory()
    assert measure_memory(os.getpid()).total > 0
