"""Requests and loads: who waits, for how long, what they hear, and what becomes of them when a model is replaced."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import msgspec
import pytest

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import ModelLoading, ModelUnavailable, NoRoom
from server.types import Delta, Finished, LoadProgress, ModelFacts, Started, Usage
from server.workers.channel import ParentChannel
from server.workers.client import WorkerClient
from server.workers.messages import (
    Generate,
    StepOutput,
    StreamOutput,
    Tokenize,
    Tokenized,
    ToWorker,
    WeightsRead,
)
from tests.fakes.scripted import answer, request, scripted

T = TypeVar("T")
EMBEDDING = ModelConfig(id="m", kind="embedding", backend="sentence_transformers", source="file:x")


class FakeChannel:
    def __init__(self) -> None:
        self.sent: list[ToWorker] = []

    def send(self, message: ToWorker) -> bool:
        self.sent.append(message)
        return True


async def begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a request and let it run until it waits."""
    task = asyncio.create_task(work)
    for _ in range(8):
        await asyncio.sleep(0)
    return task


class Stage:
    """A client that starts a load whenever it asks for one, as a keeper does."""

    def __init__(self, config: ModelConfig | None = None, **limits: Any) -> None:
        self.num_loads = 0
        self.channel = FakeChannel()
        self.client = WorkerClient(config or scripted("m"), Limits(**limits), request_load=self.load)

    def load(self) -> None:
        self.num_loads += 1
        self.client.begin_load()
        self.client.note_room()

    def attach(self, fingerprint: str = "") -> None:
        facts = ModelFacts(context_length=100, fingerprint=fingerprint)
        self.client.attach(cast(ParentChannel, self.channel), facts)

    def say(self, text: str) -> None:
        """Answer everything that was asked."""
        events = (Started(1), Delta(text), Finished("stop", Usage(prompt_tokens=1)))
        for message in self.channel.sent:
            if isinstance(message, Generate):
                request_id = message.request.request_id
                self.client.dispatch(StepOutput([StreamOutput(request_id, event) for event in events]))


async def test_many_requests_for_a_model_that_is_not_loaded_are_one_load() -> None:
    stage = Stage()

    waiting = [await begin(answer(stage.client)) for _ in range(5)]
    stage.attach()
    await begin(asyncio.sleep(0))
    stage.say("here")

    assert await asyncio.gather(*waiting) == ["here"] * 5
    assert stage.num_loads == 1


async def test_a_refused_load_is_told_to_all_who_wait_and_tried_again_by_the_next_request() -> None:
    stage = Stage()
    waiting = [await begin(answer(stage.client)) for _ in range(2)]

    stage.client.refuse(NoRoom("needs 5.1 GiB", retry_after_s=7))

    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, NoRoom)
        assert (error.message, error.retry_after_s) == ("needs 5.1 GiB", 7)
    assert (stage.client.state, stage.num_loads) == ("unloaded", 1)
    another = await begin(answer(stage.client))
    assert (stage.client.state, stage.num_loads) == ("loading", 2)
    another.cancel()


async def test_a_request_that_comes_while_the_model_drains_has_it_loaded_again() -> None:
    stage = Stage()
    stage.attach()
    stage.client.set_state("draining")
    waiting = await begin(answer(stage.client))
    assert stage.num_loads == 0

    stage.client.set_state("unloaded")
    await begin(asyncio.sleep(0))
    assert stage.num_loads == 1
    stage.attach()
    await begin(asyncio.sleep(0))
    stage.say("again")

    assert await waiting == "again"


async def test_a_worker_that_gets_ready_while_it_is_being_ended_gets_nothing_to_do() -> None:
    stage = Stage()
    stage.client.set_state("draining")

    stage.attach()

    assert stage.client.state == "draining"


@pytest.mark.parametrize(
    ("expected_s", "weights", "waiting_for", "message", "retry_after_s"),
    [
        (None, None, None, "model 'm' is still loading; try again in 5 s", 5),
        (10.0, None, None, "model 'm' is still loading (0%); try again in 10 s", 10),
        (1e6, None, None, "model 'm' is still loading (0%); try again in 120 s", 120),
        (None, 0.5, None, "model 'm' is still loading (50%); try again in 1 s", 1),
        (None, None, "no room", "model 'm' is still loading: no room; try again in 5 s", 5),
    ],
)
async def test_whoever_has_waited_long_enough_hears_how_far_the_load_is(
    expected_s: float | None, weights: float | None, waiting_for: str | None, message: str, retry_after_s: int
) -> None:
    stage = Stage(load_wait_s=0.01)
    stage.load()
    stage.client.expect_load(expected_s)
    stage.client.waiting_for = waiting_for
    if weights is not None:
        stage.client.dispatch(WeightsRead(weights))

    with pytest.raises(ModelLoading) as caught:
        await answer(stage.client)

    assert (caught.value.message, caught.value.retry_after_s) == (message, retry_after_s)


@pytest.mark.parametrize(
    ("progress", "fraction", "remaining_s"),
    [
        (LoadProgress(elapsed_s=3), None, None),
        (LoadProgress(elapsed_s=3, expected_s=12), 0.25, 9),
        (LoadProgress(elapsed_s=30, expected_s=12), 0.99, 0),
        (LoadProgress(elapsed_s=3, weights_fraction=0.75), 0.75, 1),
        (LoadProgress(elapsed_s=3, expected_s=12, weights_fraction=0.5), 0.5, 9),
        (LoadProgress(elapsed_s=3, expected_s=12, weights_fraction=1.0), 0.25, 9),  # it is warming up by now
    ],
)
def test_progress_is_what_is_known(progress: LoadProgress, fraction: float | None, remaining_s: float | None) -> None:
    assert progress.fraction == fraction
    assert progress.remaining_s == (None if remaining_s is None else pytest.approx(remaining_s))


async def test_use_and_idleness_are_noted() -> None:
    stage, idle = Stage(), asyncio.Event()
    stage.client.on_idle = idle.set
    assert (stage.client.idle_s, stage.client.progress) == (None, None)
    stage.load()
    assert stage.client.progress is not None
    stage.attach()
    assert stage.client.idle_s is not None

    waiting = await begin(answer(stage.client))
    assert (stage.client.num_requests, stage.client.idle_s) == (1, None)
    asked_at = time.monotonic()
    stage.say("hi")
    await waiting

    assert idle.is_set()
    assert stage.client.last_used >= asked_at


# ---- heirs


async def test_requests_go_to_the_heir_those_that_wait_included() -> None:
    old, new = Stage(), Stage()
    waiting = await begin(answer(old.client))  # for a load that will never end

    old.client.hand_over(new.client)
    late = await begin(answer(old.client))
    new.attach()
    await begin(asyncio.sleep(0))
    new.say("from the heir")

    assert await asyncio.gather(waiting, late) == ["from the heir"] * 2
    assert (old.client.num_requests, new.client.num_requests) == (0, 0)


async def test_what_runs_stays_where_it_is() -> None:
    old, new = Stage(), Stage()
    old.attach()
    running = await begin(answer(old.client))
    drained = await begin(old.client.all_answered())

    old.client.hand_over(new.client)
    assert not drained.done()
    old.say("from the old one")

    assert await running == "from the old one"
    await drained
    assert new.num_loads == 0


async def test_ids_of_requests_that_were_handed_over_are_their_own() -> None:
    """Each client counts its requests; the heir has those of two."""
    old, new = Stage(EMBEDDING), Stage(EMBEDDING)
    old.attach("x"), new.attach("x")
    old.client.hand_over(new.client)

    asked = [await begin(client.tokenize(["a"])) for client in (old.client, new.client)]
    ids = [cast(Tokenize, message).request_id for message in new.channel.sent if isinstance(message, Tokenize)]
    for request_id in ids:
        new.client.dispatch(Tokenized(request_id, [[]]))

    assert await asyncio.gather(*asked) == [[[]], [[]]]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(("fingerprint", "goes_over"), [("x", True), ("y", False)])
async def test_whoever_holds_an_embedding_model_never_gets_vectors_of_another_one(
    fingerprint: str, *, goes_over: bool
) -> None:
    """A document that is half embedded would hold vectors of both."""
    old, new = Stage(EMBEDDING), Stage(EMBEDDING)
    old.attach("x"), new.attach(fingerprint)

    old.client.hand_over(new.client)
    old.client.close()
    asked = await begin(old.client.tokenize(["a"]))

    if goes_over:
        assert len(new.channel.sent) > 0
        asked.cancel()
    else:
        with pytest.raises(ModelUnavailable, match="draining"):
            await asked


async def test_errors_are_of_each_request_alone() -> None:
    """One that is raised twice would gather the tracebacks of both."""
    stage = Stage()
    waiting = [await begin(answer(stage.client, msgspec.structs.replace(request()))) for _ in range(2)]
    stage.client.refuse(NoRoom("none"))

    first, second = await asyncio.gather(*waiting, return_exceptions=True)

    assert first is not second
    assert re.match("none", str(first))
