"""Runs reindexes, one at a time: each has a whole store to embed. What one does is `reindex_job.py`.

The database says what is to be done, so reindexes outlive the process: `start` takes up what an earlier one left.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from server.rag.documents import ReindexRecord
from server.rag.reindex_job import ReindexJob, ReindexTools

logger = logging.getLogger(__name__)


class Reindexing:
    """All reindexes of this server, on its event loop."""

    def __init__(self, tools: ReindexTools) -> None:
        self._tools = tools
        self._turn = asyncio.Lock()
        self._jobs: dict[str, tuple[ReindexRecord, ReindexJob, asyncio.Task[None]]] = {}  # by store

    async def start(self) -> None:
        """Take up what an earlier process left unfinished."""
        for reindex in await self._tools.reindexes.unfinished():
            logger.info("reindex goes on", extra={"store": reindex.store_id})
            self.submit(reindex)

    def submit(self, reindex: ReindexRecord) -> None:
        """Begin with a reindex that is in progress, unless that has happened already; returns at once."""
        store_id = reindex.store_id
        if store_id in self._jobs:
            if self._jobs[store_id][0].edition == reindex.edition:
                return
            self.cancel(store_id)
        job = ReindexJob(reindex, self._tools)
        # In a context of its own: what it asks of models is not done for the request that began it.
        task = asyncio.create_task(self._run(job), name=f"reindex of {store_id}", context=Context())
        self._jobs[store_id] = reindex, job, task
        task.add_done_callback(lambda task: self._forget(store_id, task))

    def cancel(self, store_id: str) -> None:
        """Stop the reindex of a store, if there is one, that is not in progress any more; returns at once."""
        if store_id in self._jobs:
            self._jobs[store_id][2].cancel()

    def with_progress(self, reindex: ReindexRecord) -> ReindexRecord:
        """Return a reindex as it was read from the database, with how fast its job is, if it has one."""
        found = self._jobs.get(reindex.store_id)
        is_its_job = found is not None and found[0].edition == reindex.edition
        return found[1].with_progress(reindex) if found and is_its_job and reindex.status == "in_progress" else reindex

    async def stop(self) -> None:
        """Stop all where they are; another process goes on from there. Commits are waited for."""
        tasks = [task for _, _, task in self._jobs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: ReindexJob) -> None:
        async with self._turn:
            await job.run()

    def _forget(self, store_id: str, task: asyncio.Task[None]) -> None:
        if store_id in self._jobs and self._jobs[store_id][2] is task:
            del self._jobs[store_id]
