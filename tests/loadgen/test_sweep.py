"""Level after level, of servers that answer, refuse, or stop doing so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from server.loadgen.preparation import Plan, prepare
from server.loadgen.sweep import Level, Progress, sweep
from server.loadgen.target import Target
from server.types import ModelKind
from tests.fakes.upstream import CLOSE, HANG, Answers, Request, an_api, plain, upstream

SECONDS = 0.05


class Sweep:
    """A sweep and what it has told so far."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.progress: list[Progress] = []

    async def run(
        self,
        port: int,
        *,
        clients: list[int],
        kind: ModelKind = "chat",
        seconds: float = SECONDS,
        timeout_s: float = 10,
    ) -> None:
        target = Target("127.0.0.1", port)
        plan = Plan(kind=kind, model="m", input_tokens=20, answer_tokens=5, batch=4, seed=1)
        workload, _ = await prepare(target, plan, timeout_s=timeout_s)
        await sweep(
            target,
            workload,
            clients=clients,
            seconds=seconds,
            timeout_s=timeout_s,
            record=self.levels.append,
            report=self.progress.append,
        )


async def swept(answers: Answers, **more: object) -> Sweep:
    done = Sweep()
    async with upstream(answers) as server:
        await done.run(server.port, **more)  # type: ignore[arg-type]
    return done


def after_the_probes(answers: Answers) -> Answers:
    """Two requests are answered well, so that there is something to measure."""
    count = 0

    def answer(request: Request) -> Iterable[bytes]:
        nonlocal count
        count += 1
        return an_api(request) if count <= 2 else answers(request)

    return answer


async def test_each_level_has_its_clients_and_figures() -> None:
    done = await swept(an_api, clients=[1, 3])

    assert [level.num_clients for level in done.levels] == [1, 3]
    assert all(level.is_complete and level.num_errors == 0 and not level.errors for level in done.levels)
    assert all(level.figures["mean_answer_tokens"] == 5 for level in done.levels)
    assert all(level.figures["mean_prompt_tokens"] == 20 for level in done.levels)
    assert sum(level.num_answers for level in done.levels) == len(done.progress)


async def test_embeddings_and_reranks_are_measured_by_their_items() -> None:
    for kind in ("embedding", "rerank"):
        [level] = (await swept(an_api, clients=[2], kind=kind)).levels

        assert level.figures["items_per_s"] > 0
        assert level.figures["mean_item_tokens"] == 20


async def test_a_slow_server_is_given_the_time_for_two_answers_each() -> None:
    """Of a window without a single whole answer nobody could say how many tokens a second there are."""
    done = await swept(an_api, clients=[4], seconds=1e-6)

    [level] = done.levels
    assert level.num_answers >= 8
    assert level.figures["tokens_per_s"] * level.seconds == pytest.approx(5 * level.num_answers, rel=0.5)


async def test_some_failures_are_counted_and_the_sweep_goes_on() -> None:
    count = 0

    def every_other(request: Request) -> Iterable[bytes]:
        nonlocal count
        count += 1
        return an_api(request) if count % 2 else [plain("500 Oops", b"lost")]

    done = await swept(after_the_probes(every_other), clients=[2, 2])

    assert [level.errors for level in done.levels] == [("status 500: lost",)] * 2
    assert all(0 < level.num_errors < level.num_answers for level in done.levels)


async def test_a_server_that_breaks_down_ends_the_sweep() -> None:
    done = await swept(after_the_probes(lambda _: [CLOSE]), clients=[1, 2, 4])

    [level] = done.levels
    assert level.num_errors == level.num_answers > 0
    assert level.figures == {"completion_rate": 0, "tokens_per_s": 0, "requests_per_s": 0}


async def test_a_server_that_hangs_fails_its_requests_in_time() -> None:
    done = await swept(after_the_probes(lambda _: [HANG]), clients=[2], timeout_s=0.1)

    [level] = done.levels
    assert (level.num_errors, level.errors) == (2, ("not answered within 0.1 s",))


async def test_what_was_seen_is_told_when_it_is_cancelled() -> None:
    done = Sweep()
    is_stuck = asyncio.Event()
    count = 0

    def answers(request: Request) -> Iterable[bytes]:
        nonlocal count
        count += 1
        if count <= 5:
            return an_api(request)
        is_stuck.set()
        return [HANG]

    async with upstream(answers) as server:
        running = asyncio.create_task(done.run(server.port, clients=[1, 2], seconds=60))
        await is_stuck.wait()
        running.cancel()
        await asyncio.wait([running])

    [level] = done.levels
    assert (level.num_answers, level.is_complete, running.cancelled()) == (3, False, True)
    assert level.seconds < 60
