"""A thread with a deep stack, for code that recurses as deep as its input is nested."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

STACK_BYTES = 256 * 1024 * 1024
"""Address space, not memory: only what is used is ever touched."""


def deep_thread(name: str) -> ThreadPoolExecutor:
    """A pool of one thread, which has been started."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    # The size counts for all threads that start meanwhile; one that gets such a stack by accident is none the worse.
    before = threading.stack_size(STACK_BYTES)
    try:
        pool.submit(int).result()
    finally:
        threading.stack_size(before)
    return pool
