"""Tell systemd how the server is, as `Type=notify` and `WatchdogSec=` of a unit want to be told: datagrams to a socket.

Without systemd all of it does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class ServiceManager:
    """systemd, or whoever else has set `NOTIFY_SOCKET`; see sd_notify(3)."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        """Speak to a socket; None: to nobody.

        Args:
            watchdog_s: The server is restarted when it has not been heard of for so long; None: it is not watched.
        """
        self._address = address.replace("@", "\0", 1) if address and address.startswith("@") else address
        self._watchdog_s = watchdog_s

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ServiceManager:
        """Whoever started this process."""
        watchdog_us, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_watched = watchdog_us.isdigit() and pid in ("", str(os.getpid()))
        return cls(environ.get("NOTIFY_SOCKET"), watchdog_s=int(watchdog_us) / 1e6 if is_watched else None)

    def say_ready(self) -> None:
        self._say("READY=1")

    def say_reloading(self) -> None:
        """To be followed by `say_ready`."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def say_stopping(self) -> None:
        self._say("STOPPING=1")

    async def keep_content(self) -> None:
        """Feed the watchdog until cancelled. From the event loop, so that one that stands still is found out."""
        if self._address is None or self._watchdog_s is None:
            return
        while True:
            self._say("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 3)

    def _say(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # a manager that does not listen must not stop us
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            logger.warning("the service manager cannot be told", extra={"message_lost": lines[0], "error": str(exc)})
