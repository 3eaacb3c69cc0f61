"""The front threads of a chat worker: prepare requests for the engine, in order, while aborts go straight past them.

Requests with a grammar have one of their own: to compile it may take a second, which those without must not wait for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from server.types import GenerateRequest
from server.workers.messages import Question

Asked = GenerateRequest | Question


class Front:
    """Prepares requests one after the other, those with a grammar on one thread and all others on another.

    `submit` and `abort` are called by one thread, the channel's, and return at once.

    Args:
        prepare: Called on a front thread; gives the request to the engine, answers or refuses it, and must not raise.
        abort: Drops a request from the engine before its next step; ignores one that is not there. Called on any of
            these threads.

    Attributes:
        num_prepared: Requests that the front threads are done with.
    """

    def __init__(self, prepare: Callable[[Asked], None], abort: Callable[[str], None]) -> None:
        self._prepare = prepare
        self._abort = abort
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="front")
        self._grammar_pool = ThreadPoolExecutor(1, thread_name_prefix="front of grammars")
        self._counting = threading.Lock()
        self._here: dict[str, Asked] = {}  # from their arrival until the engine has them
        self._num_received = 0
        self.num_prepared = 0

    @property
    def num_waiting(self) -> int:
        """Requests that a front thread has yet to prepare or to drop: a thread that is stuck with them must show."""
        return self._num_received - self.num_prepared

    def submit(self, request: Asked) -> None:
        self._here[request.request_id] = request
        self._num_received += 1
        has_grammar = isinstance(request, GenerateRequest) and request.may_have_grammar
        pool = self._grammar_pool if has_grammar else self._pool
        pool.submit(self._work, request)

    def abort(self, request_id: str) -> None:
        """Drop a request wherever it is: still here, or in the engine."""
        if not self._leave(request_id):
            self._abort(request_id)

    def _work(self, request: Asked) -> None:
        if request.request_id in self._here:
            self._prepare(request)
            # NOTE: after the engine has it, not before. An abort comes either before this line, and is made up for
            # here, or after it, and follows the request into the engine.
            if not self._leave(request.request_id):
                self._abort(request.request_id)
        with self._counting:
            self.num_prepared += 1

    def _leave(self, request_id: str) -> bool:
        """Take a request off the list; false if it is not on it. Atomic: of two threads one gets it."""
        return self._here.pop(request_id, None) is not None
