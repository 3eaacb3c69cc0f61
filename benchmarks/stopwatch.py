"""Where the time of nested calls goes: self times of methods, watched from outside."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from typing import Any


class Stopwatch:
    """Adds up what each watched method spends outside of other watched methods. One thread."""

    def __init__(self) -> None:
        self.self_s: defaultdict[str, float] = defaultdict(float)
        self._inner_s = [0.0]  # for each open call, what watched calls inside it have taken

    def watch(self, part: str, owner: object, method: str) -> None:
        """Count calls of `owner.method` to `part`; several methods may count to one part."""
        call = getattr(owner, method)

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            self._inner_s.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                total_s = time.perf_counter() - started
                self.self_s[part] += total_s - self._inner_s.pop()
                self._inner_s[-1] += total_s

        setattr(owner, method, timed)
