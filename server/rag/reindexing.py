"""Runs reindexes, of each model one at a time: each has a whole store to embed. What one does is `reindex_job.py`.

One whose model is away keeps only those waiting that want the same model.

The database says what is to be done, so reindexes outlive the process: `start` takes up what an earlier one left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import replace

from server.asker import job_context
from server.rag.documents import ReindexRecord
from server.rag.reindex_job import ReindexJob, ReindexTools

logger = logging.getLogger(__name__)


class Reindexing:
    """All reindexes of this server, on its event loop."""

    def __init__(self, tools: ReindexTools) -> None:
        self._tools = tools
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by model
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
        name = f"reindex of {store_id}"
        running = self._run(job, self._turns[reindex.embedding_model])
        task = asyncio.create_task(running, name=name, context=job_context(reindex.tenant))
        self._jobs[store_id] = reindex, job, task
        task.add_done_callback(lambda task: self._forget(store_id, task))

    def cancel(self, store_id: str) -> None:
        """Stop the reindex of a store, if there is one, that is not in progress any more; returns at once."""
        if store_id in self._jobs:
            self._jobs[store_id][2].cancel()

    def with_progress(self, reindex: ReindexRecord) -> ReindexRecord:
        """Return a reindex as it was read from the database, with how its job gets on, if it has one."""
        found = self._jobs.get(reindex.store_id)
        if found is None or found[0].edition != reindex.edition or reindex.status != "in_progress":
            return reindex
        _, job, _ = found
        return job.with_progress(reindex) if job.is_begun else replace(reindex, waiting_for=self._turn_of(reindex))

    async def stop(self) -> None:
        """Stop all where they are; another process goes on from there. Commits are waited for."""
        tasks = [task for _, _, task in self._jobs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: ReindexJob, turn: asyncio.Lock) -> None:
        async with turn:
            await job.run()

    def _turn_of(self, reindex: ReindexRecord) -> str | None:
        """Say why a reindex that has not begun does not; None if it is about to. Whose turn it is stays untold."""
        model = reindex.embedding_model
        for other, job, _ in self._jobs.values():
            if job.is_begun and other.embedding_model == model:
                return job.waiting_for or f"another vector store is embedded with model {model!r} first"
        return None

    def _forget(self, store_id: str, task: asyncio.Task[None]) -> None:
        if store_id in self._jobs and self._jobs[store_id][2] is task:
            del self._jobs[store_id]
