"""Runs ingestion jobs: who is next, and how many at a time. What a job does is `ingestion_job.py`.

The database says what is to be done, so jobs outlive the process: `start` takes up what an earlier one left. What that
one was working on when it died comes first, a document at a time with nothing beside it: it may have died of one.

A job that waits for its model keeps nobody else waiting, and those of its store that have not begun wait with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from server.asker import job_context
from server.rag.documents import DocumentRecord
from server.rag.ingestion_job import IngestionJob
from server.rag.job_tools import JobTools

logger = logging.getLogger(__name__)

MAX_RUNNING = 8
"""Documents that are worked on side by side: enough for the model's batches when each has few chunks."""

MAX_IN_HAND = 4
"""Times as many, with those that wait for their model: each may hold a text, and more than one model may be away."""

MAX_WITH_CONTEXTS = 2
"""Of these, documents that the chat model writes contexts for: that takes long, and the others shall get on."""


@dataclass(frozen=True, eq=False)
class _Wait:
    """A store's wait for its model, by the job that was to begin."""

    job: IngestionJob
    task: asyncio.Task[None]


class Ingestion:
    """All jobs of this server, on its event loop. Stores take turns: a large one does not keep others waiting."""

    def __init__(self, tools: JobTools, *, max_running: int = MAX_RUNNING) -> None:
        self._tools = tools
        self._max_running = max_running
        self._jobs: dict[int, IngestionJob] = {}  # waiting or running, by document
        # By store and document, none empty, first come first; the first store is next. There may be 100,000 documents.
        self._waiting: dict[str, OrderedDict[int, IngestionJob]] = {}
        self._suspects: dict[int, IngestionJob] = {}  # waiting, by document; not among the others
        self._running: dict[int, asyncio.Task[bool]] = {}
        self._held: set[str] = set()  # stores whose waiting jobs wait on
        self._waits: dict[str, _Wait] = {}  # by store; the jobs of these, too
        self._is_stopped = False

    @property
    def num_running(self) -> int:
        """Documents that are worked on."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Documents whose turn has not come."""
        return len(self._jobs) - len(self._running)

    async def start(self) -> None:
        """Take up what an earlier process left unfinished."""
        unfinished = await self._tools.documents.unfinished()
        for tenant, document in unfinished:
            self._enqueue(self._job(tenant, document))
        if unfinished:
            logger.info("ingestion goes on", extra={"documents": len(unfinished)})
        self._fill()

    def submit(self, tenant: str, documents: Iterable[DocumentRecord]) -> None:
        """Begin with documents that are in progress; returns at once."""
        for document in documents:
            self._enqueue(self._job(tenant, document))
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
        if job is None or document.status != "in_progress":
            return document
        told = job.with_progress(document)
        wait = self._waits.get(document.store_id)
        return replace(told, waiting_for=wait.job.waiting_for) if wait and document.id not in self._running else told

    async def stop(self) -> None:
        """Stop all jobs where they are; another process goes on from there. Commits are waited for."""
        self._is_stopped = True
        tasks = [*self._running.values(), *(wait.task for wait in self._waits.values())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # ---- turns

    def _job(self, tenant: str, document: DocumentRecord) -> IngestionJob:
        return IngestionJob(tenant, document, self._tools, on_change=self._fill)

    def _enqueue(self, job: IngestionJob) -> None:
        self._jobs[job.document.id] = job
        if job.is_suspect:
            self._suspects[job.document.id] = job
        else:
            self._waiting.setdefault(job.document.store_id, OrderedDict())[job.document.id] = job

    def _fill(self) -> None:
        while not self._is_stopped and (job := self._take()):
            name = f"ingestion of {job.document.file_id}"
            task = asyncio.create_task(job.run(), name=name, context=job_context(job.tenant))
            self._running[job.document.id] = task
            task.add_done_callback(partial(self._on_end, job))

    def _take(self) -> IngestionJob | None:
        """The next job; None if there is none, or no room for it."""
        working = [job for job in map(self._jobs.__getitem__, self._running) if not job.waits_for_model]
        suspects = [job for job in self._suspects.values() if self._may_begin(job)]
        if suspects:  # those that have been tried least, or one that kills would keep those that do not waiting
            return None if working else self._suspects.pop(min(suspects, key=_num_attempts).document.id)
        if len(working) >= self._max_running or len(self._running) >= MAX_IN_HAND * self._max_running:
            return None
        if any(job.is_suspect for job in working):
            return None
        return self._take_in_turn()

    def _take_in_turn(self) -> IngestionJob | None:
        """The next job of the store whose turn it is, which goes to the end of the row; None if nobody has one."""
        first_jobs = ((store_id, next(iter(jobs.values()))) for store_id, jobs in self._waiting.items())
        store_id = next((store_id for store_id, job in first_jobs if self._may_begin(job)), None)
        if store_id is None:
            return None
        jobs = self._waiting.pop(store_id)
        _, job = jobs.popitem(last=False)
        if jobs:
            self._waiting[store_id] = jobs
        return job

    def _may_begin(self, job: IngestionJob) -> bool:
        """Whether a job may begin now, as far as its store and its contexts go."""
        if job.document.store_id in self._held or job.document.store_id in self._waits:
            return False
        running = (self._jobs[document_id] for document_id in self._running)
        return not job.wants_contexts or sum(each.wants_contexts for each in running) < MAX_WITH_CONTEXTS

    def _drop(self, job: IngestionJob) -> None:
        document = job.document
        del self._jobs[document.id]
        if self._suspects.pop(document.id, None) is None:
            jobs = self._waiting[document.store_id]
            del jobs[document.id]
            if not jobs:
                del self._waiting[document.store_id]
        wait = self._waits.get(document.store_id)
        if wait and wait.job is job:  # another one of the store, if there is one, takes its place
            wait.task.cancel()

    def _on_end(self, job: IngestionJob, task: asyncio.Task[bool]) -> None:
        del self._jobs[job.document.id], self._running[job.document.id]
        if not task.cancelled() and not task.result():
            self._enqueue(job)
            self._wait_for_model(job)
        self._fill()

    # ---- models that are not ready

    def _wait_for_model(self, job: IngestionJob) -> None:
        """Let no job of a store begin before its model is ready."""
        store_id = job.document.store_id
        if store_id not in self._waits and not self._is_stopped:
            waiting, name = job.wait_for_model(), f"ingestion of {job.document.file_id} waits"
            task = asyncio.create_task(waiting, name=name, context=job_context(job.tenant))
            self._waits[store_id] = _Wait(job, task)
            task.add_done_callback(lambda _: self._end_wait(store_id))

    def _end_wait(self, store_id: str) -> None:
        del self._waits[store_id]
        self._fill()


def _num_attempts(job: IngestionJob) -> int:
    return job.document.num_attempts
