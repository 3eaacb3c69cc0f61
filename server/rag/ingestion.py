"""Runs ingestion jobs: who is next, and how many at a time. What a job does is `ingestion_job.py`.

The database says what is to be done, so jobs outlive the process: `start` takes up what an earlier one left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from server.rag.documents import DocumentRecord
from server.rag.ingestion_job import IngestionJob, JobTools

logger = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Documents that are worked on side by side: enough for the model's batches when each has few chunks."""


class Ingestion:
    """All jobs of this server, on its event loop. Stores take turns: a large one does not keep others waiting."""

    def __init__(self, tools: JobTools, *, max_running: int = MAX_RUNNING) -> None:
        self._tools = tools
        self._max_running = max_running
        self._jobs: dict[int, IngestionJob] = {}  # waiting or running, by document
        self._waiting: dict[str, deque[IngestionJob]] = {}  # by store, none empty; the first store is next
        self._running: dict[int, asyncio.Task[None]] = {}
        self._is_stopped = False

    async def start(self) -> None:
        """Take up what an earlier process left unfinished."""
        unfinished = await self._tools.documents.unfinished()
        for tenant, document in unfinished:
            self._enqueue(IngestionJob(tenant, document, self._tools))
        if unfinished:
            logger.info("ingestion goes on", extra={"documents": len(unfinished)})
        self._fill()

    def submit(self, tenant: str, documents: Iterable[DocumentRecord]) -> None:
        """Begin with documents that are in progress; returns at once."""
        for document in documents:
            self._enqueue(IngestionJob(tenant, document, self._tools))
        self._fill()

    def cancel(self, is_meant: Callable[[DocumentRecord], bool]) -> None:
        """Stop the jobs of documents that are not in progress any more; returns at once."""
        for job in [job for job in self._jobs.values() if is_meant(job.document)]:
            task = self._running.get(job.document.id)
            if task is None:
                self._drop(job)
            else:
                task.cancel()

    def with_progress(self, document: DocumentRecord) -> DocumentRecord:
        """Return a document as it was read from the database, with how far its job is, if it has one."""
        job = self._jobs.get(document.id)
        return job.with_progress(document) if job and document.status == "in_progress" else document

    async def stop(self) -> None:
        """Stop all jobs where they are; another process goes on from there. Commits are waited for."""
        self._is_stopped = True
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    # ---- turns

    def _enqueue(self, job: IngestionJob) -> None:
        self._jobs[job.document.id] = job
        self._waiting.setdefault(job.document.store_id, deque()).append(job)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._max_running and not self._is_stopped:
            job = self._take()
            task = asyncio.create_task(job.run(), name=f"ingestion of {job.document.file_id}")
            self._running[job.document.id] = task
            task.add_done_callback(partial(self._on_end, job))

    def _take(self) -> IngestionJob:
        """The next job of the store whose turn it is, which goes to the end of the row."""
        store_id = next(iter(self._waiting))
        jobs = self._waiting.pop(store_id)
        job = jobs.popleft()
        if jobs:
            self._waiting[store_id] = jobs
        return job

    def _drop(self, job: IngestionJob) -> None:
        del self._jobs[job.document.id]
        jobs = self._waiting[job.document.store_id]
        jobs.remove(job)
        if not jobs:
            del self._waiting[job.document.store_id]

    def _on_end(self, job: IngestionJob, _task: asyncio.Task[None]) -> None:
        del self._jobs[job.document.id], self._running[job.document.id]
        self._fill()
