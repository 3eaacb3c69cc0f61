"""When the keeper of a worker loses patience with it."""

from __future__ import annotations

from dataclasses import dataclass

from server.workers.client import RETRY_FAILED_AFTER_S


@dataclass(frozen=True)
class SupervisionPolicy:
    """When to lose patience.

    Attributes:
        heartbeat_timeout_s: A worker that says nothing for so long is dead or stopped.
        load_heartbeat_timeout_s: The same before it is ready: importing torch may hold its interpreter for long.
        step_timeout_s: A worker whose step takes so long, or that has work and finishes nothing of it for so long,
            is hung, though its heart beats. Steps take milliseconds to seconds; a long prompt is many steps.
        load_timeout_s: A model that loads for so long never will.
        max_crashes, crash_window_s: That many crashes within the window open the breaker: the model is `failed`.
        retry_failed_after_s: A failed model is tried once more by a request that comes so long after it failed.
        first_backoff_s, max_backoff_s: Wait before a restart; doubles with each crash in the window.
        stop_grace_s: How long a worker may take to end when asked.
        drain_s: How long running requests may take to end when their model is unloaded.
    """

    heartbeat_timeout_s: float = 10.0
    load_heartbeat_timeout_s: float = 60.0
    step_timeout_s: float = 300.0
    load_timeout_s: float = 1800.0
    max_crashes: int = 5
    crash_window_s: float = 60.0
    retry_failed_after_s: float = RETRY_FAILED_AFTER_S
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    stop_grace_s: float = 5.0
    drain_s: float = 30.0
