from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from scripts.steps import SetupError, Steps


def test_a_step_is_one_line_with_its_number_result_and_seconds() -> None:
    out = io.StringIO()

    with Steps(2, out).step("virtual environment") as step:
        step.result = "made"

    assert re.fullmatch(r"\[1/2\] virtual environment \.\.\. made, \d+\.\d s\n", out.getvalue())


def test_notes_stand_between_the_start_and_the_result_of_a_step() -> None:
    out = io.StringIO()

    with Steps(1, out).step("compiler") as step:
        step.note("gcc is passed over")

    assert re.fullmatch(r"\[1/1\] compiler \.\.\. \n {6}gcc is passed over\n {6}done, \d+\.\d s\n", out.getvalue())


def test_a_childs_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"

    Steps(1, io.StringIO()).run(
        [sys.executable, "-c", "print('hello')"], what="greeting", log=log, describe=lambda line: line
    )

    assert "hello" in log.read_text()


def test_a_failing_child_says_how_and_where_to_read_on(tmp_path: Path) -> None:
    log = tmp_path / "child.log"

    with pytest.raises(SetupError, match=r"broken\ncompiling failed \(exit 3\); the whole log is .*child\.log"):
        Steps(1, io.StringIO()).run(
            [sys.executable, "-c", "print('broken'); exit(3)"], what="compiling", log=log, describe=lambda line: line
        )


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            if pid.exists() and pid.read_text():
                raise KeyboardInterrupt
            return False

    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        Steps(1, Terminal()).run(
            [sys.executable, "-c", code], what="waiting", log=tmp_path / "log", describe=lambda line: line
        )

    assert not Path("/proc", pid.read_text()).exists()
