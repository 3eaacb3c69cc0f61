"""What the first process of a container has to be: the one that passes signals on and buries the dead."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def leave_first_process() -> None:
    """Return in a child if this is process 1; the first process itself then only looks after it.

    Children of children that die come to process 1, and stay as zombies if it does not ask for them. The server cannot:
    it would take the endings of its own children from those who wait for them. To be called before there are threads.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until it is known whom they are for
    server = os.fork()
    if server:
        sys.exit(_look_after(server))
    os.setsid()  # Ctrl-C in a terminal comes to the first process alone, which passes it on: once, not twice
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _look_after(server: int) -> int:
    """Wait for the end of everybody; return the server's exit code, 128 and the number of a signal that ended it."""

    def pass_on(sig: int, _frame: FrameType | None) -> None:
        os.kill(server, sig)

    for sig in _PASSED_ON:
        signal.signal(sig, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    while True:
        pid, status = os.wait()
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
