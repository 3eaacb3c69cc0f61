"""Runs ingestion jobs: who is next, and how many at a time. What a job does is `ingestion_job.py`.

The database says what is to be done, so jobs outlive the process: `start` takes up what an earlier one left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from server.rag.documents import DocumentRecord
from server.rag.ingestion_job import IngestionJob, JobTools

logger = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Documents that are worked on side by side: enough for the model's batches when each has few chunks."""

MAX_WITH_CONTEXTS = 2
"""Of these, documents that the chat model writes contexts for: that takes long, and the others shall get on."""


class Ingestion:
    """All jobs of this server, on its event loop. Stores take turns: a large one does not keep others waiting."""

    def __init__(self, tools: JobTools, *, max_running: int = MAX_RUNNING) -> None:
        self._tools = tools
        self._max_running = max_running
        self._jobs: dict[int, IngestionJob] = {}  # waiting or running, by document
        # By store and document, none empty, first come first; the first store is next. There may be 100,000 documents.
        self._waiting: dict[str, OrderedDict[int, IngestionJob]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._held: set[str] = set()  # stores whose waiting jobs wait on
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

    @contextmanager
    def held(self, store_id: str) -> Iterator[None]:
        """Begin no more jobs of a store meanwhile; those that run go on. One caller at a time for each store."""
        self._held.add(store_id)
        try:
            yield
        finally:
            self._held.remove(store_id)
            self._fill()

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
        self._waiting.setdefault(job.document.store_id, OrderedDict())[job.document.id] = job

    def _fill(self) -> None:
        while len(self._running) < self._max_running and not self._is_stopped and (job := self._take()):
            task = asyncio.create_task(job.run(), name=f"ingestion of {job.document.file_id}")
            self._running[job.document.id] = task
            task.add_done_callback(partial(self._on_end, job))

    def _take(self) -> IngestionJob | None:
        """The next job of the store whose turn it is, which goes to the end of the row; None if nobody has one."""
        store_id = next((each for each in self._waiting if self._may_begin(each)), None)
        if store_id is None:
            return None
        jobs = self._waiting.pop(store_id)
        _, job = jobs.popitem(last=False)
        if jobs:
            self._waiting[store_id] = jobs
        return job

    def _may_begin(self, store_id: str) -> bool:
        """Whether the next job of a store may begin now."""
        if store_id in self._held:
            return False
        job = next(iter(self._waiting[store_id].values()))
        running = (self._jobs[document_id] for document_id in self._running)
        return not job.wants_contexts or sum(each.wants_contexts for each in running) < MAX_WITH_CONTEXTS

    def _drop(self, job: IngestionJob) -> None:
        del self._jobs[job.document.id]
        jobs = self._waiting[job.document.store_id]
        del jobs[job.document.id]
        if not jobs:
            del self._waiting[job.document.store_id]

    def _on_end(self, job: IngestionJob, _task: asyncio.Task[None]) -> None:
        del self._jobs[job.document.id], self._running[job.document.id]
        self._fill()
