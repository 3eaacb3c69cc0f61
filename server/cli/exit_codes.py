"""How commands end. docs/operations.md says the same for operators; a test compares the two with what commands do."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's caller learns. 128 and more: as a shell says it of a program that a signal ended."""

    DONE = 0
    FAILED = 1
    WRONG_INPUT = 2
    INTERRUPTED = 130
