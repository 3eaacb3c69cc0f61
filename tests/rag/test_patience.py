from __future__ import annotations

import asyncio

import pytest

from server.errors import InvalidRequest, ModelUnavailable, StorageError, StorageFull, WorkerCrashed
from server.rag.patience import Patience, RetryPolicy

AT_ONCE = RetryPolicy(first_wait_s=0, max_wait_s=0, max_crashes=3, max_storage_errors=3)


def patience(suspects: asyncio.Lock | None = None) -> Patience:
    return Patience(AT_ONCE, suspects or asyncio.Lock(), name={})


class Work:
    """Fails with each of some errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.num_calls = 0

    async def __call__(self) -> str:
        self.num_calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    "errors",
    [
        [ModelUnavailable("loading")] * 50,
        [StorageFull("full")] * 50,
        [WorkerCrashed("died")] * 2,
        [StorageError("held")] * 2,
        [WorkerCrashed("died"), StorageError("held"), ModelUnavailable("loading")] * 2,
    ],
)
async def test_what_passes_is_waited_for(errors: list[Exception]) -> None:
    assert await patience().call(Work(*errors)) == "done"


@pytest.mark.parametrize(
    ("errors", "num_calls"),
    [
        ([WorkerCrashed("died")] * 9, 3),
        ([StorageError("held")] * 9, 3),
        ([InvalidRequest("wrong")], 1),
    ],
)
async def test_what_does_not_pass_is_the_callers(errors: list[Exception], num_calls: int) -> None:
    work = Work(*errors)

    with pytest.raises(type(errors[0])):
        await patience().call(work)

    assert work.num_calls == num_calls


async def test_it_tells_what_it_waits_for() -> None:
    waiting = patience()
    told = []

    async def work() -> None:
        told.append(waiting.waiting_for)
        if len(told) == 1:
            raise ModelUnavailable("the model is loading")

    await waiting.call(work)

    assert [*told, waiting.waiting_for] == [None, "the model is loading", None]


async def test_those_that_saw_a_crash_try_again_one_at_a_time() -> None:
    """Only then is it plain whose text it is that kills the worker."""
    suspects = asyncio.Lock()
    num_running = 0
    most: list[int] = []

    async def suspect(attempts: list[int]) -> None:
        nonlocal num_running
        attempts.append(0)
        if len(attempts) == 1:
            raise WorkerCrashed("died")
        num_running += 1
        most.append(num_running)
        await asyncio.sleep(0)
        num_running -= 1

    def job() -> asyncio.Task[None]:
        attempts: list[int] = []
        return asyncio.create_task(patience(suspects).call(lambda: suspect(attempts)))

    await asyncio.gather(*(job() for _ in range(5)))

    assert max(most) == 1
