"""What everybody has used: kept in a journal before anybody is told of it, and in the database soon after.

    request ──keep──▶ journal file (one write each, survives kill -9) ──fold, once a second──▶ table `usage`

What was folded is deleted only when the database has it for good, and a record has one id: to fold a file twice, after
a crash, changes nothing. A start folds what an earlier process left behind, what was running then as `server_died`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

from server.access import usage_rows
from server.access.request_meter import RequestMeter
from server.access.usage_journal import JournalFile, JournalFolder, read_all, read_ended, to_line
from server.access.usage_record import SERVER_DIED, UsageRecord
from server.access.usage_report_queue import ReportQueue
from server.access.usage_rows import UsageGroup, UsageQuery
from server.errors import StorageError, StorageUnavailable
from server.storage.database import Database

logger = logging.getLogger(__name__)

FOLD_S = 1.0
"""Between two folds: as much as a power cut may cost, and the age of what is known of requests that never ended."""

MAX_FOLD_S = 10.0
"""The same, at most, while the database takes nothing: it is tried after twice as long each time."""

MAX_HELD = 10_000
"""Records that wait in memory while the journal cannot be written; older ones are lost then."""

EXPIRY_S = 3600.0
DAY_S = 86_400
_DAY_MS = DAY_S * 1000
_SLICE = 1000  # requests that one transaction deletes


class UsageLedger:
    """Keeps records, and tells of them. `note` and `settle` never wait for a disk that is slow or gone.

    Args:
        find_database: Returns the database of accounts; raises StorageUnavailable while it is not open.
        folder: Of the journal; None: nothing is kept, and reports are refused.
        clock: Unix time.

    Attributes:
        num_lost: Records that were given up.
    """

    def __init__(
        self, find_database: Callable[[], Database], folder: Path | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._find_database = find_database
        self._journal = None if folder is None else JournalFolder(folder)
        self._clock = clock
        self._running: dict[str, RequestMeter] = {}
        self._today = -1
        self._used: dict[str, tuple[int, float]] = {}  # today, by key
        self._settled_unread: deque[UsageRecord] = deque(maxlen=MAX_HELD)  # while that is not known yet
        self._held: deque[bytes] = deque()
        self._file: JournalFile | None = None
        self._leftovers: list[Path] | None = None  # of an earlier process; None: not looked for yet
        self._closed: Path | None = None  # the file before: written to no more, and not folded yet
        self._folding = asyncio.Lock()
        self._reports = ReportQueue()
        self._is_stuck = False
        self.num_lost = 0

    @asynccontextmanager
    async def opened(self, retention_days: int) -> AsyncIterator[None]:
        """Take over what an earlier process left, and keep what comes while the caller stays; fold it all at the end.

        While the data directory cannot be used, memory holds what it can, and all is tried again.
        """
        await self._fold_or_log()
        tasks = [asyncio.create_task(self._fold_for_ever()), asyncio.create_task(self._expire_for_ever(retention_days))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._fold_or_log()
            await self.close()

    # ---- on the path of requests

    def note(self, meter: RequestMeter) -> None:
        """Keep what is known of a request that goes on."""
        self._running[meter.id] = meter
        self._write(to_line(meter.record()))

    def settle(self, record: UsageRecord, *, is_refused: bool = False) -> None:
        """Keep a request that is over. Those that asked no model leave nothing, nor those that none has worked for.

        Args:
            is_refused: It was turned away. If a model has worked for it all the same, that is kept.
        """
        self._running.pop(record.id, None)
        if not record.uses or (is_refused and not record.num_tokens):
            return
        self._add_to_today(record)
        self._write(to_line(record), is_held=True)

    def used_today(self, key_id: str | None) -> tuple[int, float]:
        """Tokens and cost of a key's requests that are over, of those that came since midnight, UTC.

        Raises:
            StorageUnavailable: What was used before this process began, or on a day that the clock has been set back
                to, could not be read yet.
        """
        today = self._find_today()
        if self._today < 0 and self._journal is not None:
            raise StorageUnavailable("what keys have used today cannot be read yet; try again later")
        if today != self._today or key_id is None:
            return 0, 0.0
        return self._used.get(key_id, (0, 0.0))

    def _find_today(self) -> int:
        """Look at the calendar. A day that comes begins with nothing; one that comes again, the next fold reads."""
        today = self._day_of(self._clock())
        if today < self._today:
            self._today = -1
        return today

    def _add_to_today(self, record: UsageRecord) -> None:
        today = self._find_today()
        if self._today < 0:  # what was used of it so far is not known yet
            self._settled_unread.append(record)
            return
        if today != self._today:
            self._today, self._used = today, {}
        if record.key_id is not None and self._day_of(record.at_ms / 1000) == today:
            num_tokens, cost = self._used.get(record.key_id, (0, 0.0))
            self._used[record.key_id] = (num_tokens + record.num_tokens, cost + record.cost)

    def _write(self, line: bytes, *, is_held: bool = False) -> None:
        if self._journal is None:
            return
        try:
            if self._file is None:
                raise OSError("the data directory is not open")
            self._file.write(line)
        except OSError as exc:
            if is_held:
                self._hold(line, exc)

    def _hold(self, line: bytes, reason: OSError) -> None:
        if not self._held:
            logger.warning("usage waits in memory", extra={"reason": reason.strerror or str(reason)})
        self._held.append(line)
        if len(self._held) > MAX_HELD:
            self._held.popleft()
            self.num_lost += 1
            if self.num_lost == 1:
                logger.error("usage records are lost: too many wait in memory", extra={"most": MAX_HELD})

    # ---- folding

    async def fold(self) -> None:
        """Move what was kept so far into the database.

        Raises:
            StorageError: The data directory cannot be used, or the database is not open; the journal keeps what it has.
        """
        journal = self._journal
        if journal is None:
            raise StorageUnavailable("this server keeps no usage")
        async with self._folding:
            await self._begin_journal(journal)
            is_behind = self._closed is not None
            await self._begin_next_file(journal)
            database = self._find_database()
            if self._leftovers or is_behind:
                await database.write(lambda _db: None)  # one that refuses need not have all of it read, over and over
            if self._leftovers:
                await self._take_over(database, journal, self._leftovers)
            if self._today < 0:
                await self._read_today(database)
            await self._fold_closed(database, journal)
            if is_behind:  # the database takes it again: what has come since goes there, too
                await self._begin_next_file(journal)
                await self._fold_closed(database, journal)

    async def _begin_journal(self, journal: JournalFolder) -> None:
        if self._leftovers is None:
            self._leftovers = await asyncio.to_thread(journal.take)
        if self._file is None:
            self._file = await asyncio.to_thread(journal.begin)
        self._write_held()

    async def _take_over(self, database: Database, journal: JournalFolder, leftovers: list[Path]) -> None:
        """Fold what an earlier process has left, what was running then included."""
        records = await asyncio.to_thread(read_all, leftovers)
        await database.write(lambda db: usage_rows.insert(db, records))
        await asyncio.to_thread(journal.remove, leftovers)
        self._leftovers = []
        num_died = sum(record.status == SERVER_DIED for record in records)
        logger.info("usage taken over", extra={"requests": len(records), "server_died": num_died})

    async def _read_today(self, database: Database) -> None:
        today = self._day_of(self._clock())
        self._used = await database.read(
            lambda db: usage_rows.totals_by_key(db, today * _DAY_MS, (today + 1) * _DAY_MS)
        )
        self._today = today
        settled = list(self._settled_unread)
        self._settled_unread.clear()
        for record in settled:
            self._add_to_today(record)

    async def _begin_next_file(self, journal: JournalFolder) -> None:
        """Go on in another file, which begins with all that goes on: then the one before can be spared.

        Not while there is one before that the database has not taken: a database that refuses everything, for hours if
        need be, costs two files and one descriptor.
        """
        if self._closed is None and self._file is not None and not self._file.is_empty:
            file = await asyncio.to_thread(journal.begin)
            self._file.close()
            self._closed, self._file = self._file.path, file
        for meter in self._running.values():
            self._write(to_line(meter.record()))

    async def _fold_closed(self, database: Database, journal: JournalFolder) -> None:
        if self._closed is None:
            return
        paths = [self._closed]
        records = await asyncio.to_thread(read_ended, paths)
        await database.write(lambda db: usage_rows.insert(db, records))
        await asyncio.to_thread(journal.remove, paths)
        self._closed = None

    def _write_held(self) -> None:
        while self._held and self._file is not None:
            try:
                self._file.write(self._held[0])
            except OSError:
                return
            self._held.popleft()

    async def _fold_for_ever(self) -> NoReturn:
        wait_s = FOLD_S
        while True:
            await asyncio.sleep(wait_s)
            await self._fold_or_log()
            wait_s = min(2 * wait_s, MAX_FOLD_S) if self._is_stuck else FOLD_S

    async def _fold_or_log(self) -> None:
        try:
            await self.fold()
            self._is_stuck = False
        except StorageError as exc:
            if not self._is_stuck:  # not at each try
                logger.warning("usage waits for the database", extra={"reason": exc.message})
            self._is_stuck = True
        except Exception:
            logger.exception("usage could not be folded")
            self._is_stuck = True

    async def close(self) -> None:
        """Let go of the journal as it is; what is not folded will be at the next start."""
        if self._file is not None:
            self._file.close()
            if self._file.is_empty:
                await asyncio.to_thread(self._file.path.unlink)
        self._file = self._closed = self._leftovers = None
        if self._journal is not None:
            self._journal.release()

    # ---- looking back

    async def report(self, query: UsageQuery) -> list[UsageGroup]:
        """Return what was used, by all requests that are over by now. One report is made at a time.

        Raises:
            LimitExceeded: Too many of this tenant wait already.
            InvalidRequest: It takes too long.
            StorageError: As of `fold`.
        """
        async with self._reports.turn(query.tenant) as patience:
            await self.fold()
            return await self._find_database().read(lambda db: usage_rows.report(db, query, patience))

    async def expire(self, retention_days: int) -> None:
        """Delete what is older, slice by slice. Errors as of `fold`."""
        database = self._find_database()
        before_ms = round((self._clock() - retention_days * DAY_S) * 1000)
        num_deleted = 1
        while num_deleted:
            num_deleted = await database.write(
                lambda db: usage_rows.delete_before(db, before_ms, limit=_SLICE), use_reserve=True
            )

    async def _expire_for_ever(self, retention_days: int) -> NoReturn:
        while True:
            try:
                await self.expire(retention_days)
            except StorageError as exc:
                logger.warning("usage does not expire", extra={"reason": exc.message})
            await asyncio.sleep(EXPIRY_S)

    @staticmethod
    def _day_of(at: float) -> int:
        return int(at // DAY_S)
