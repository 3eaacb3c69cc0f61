"""The client over a channel that a test plays: every request ends, once, whatever the worker does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import pytest

from server.asker import Asker, asking
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    WorkerCrashed,
)
from server.types import (
    ChatMessage,
    ChatPrompt,
    Delta,
    Failed,
    Finished,
    ModelFacts,
    RenderedPart,
    RenderedPrompt,
    Started,
    StreamEvent,
    TextPrompt,
    Token,
    Usage,
)
from server.workers.channel import ParentChannel
from server.workers.client import RETRY_FAILED_AFTER_S, WorkerClient
from server.workers.cpu_split import CpuSplit
from server.workers.messages import (
    Abort,
    Begun,
    BulkShare,
    Embed,
    Embedded,
    Generate,
    Heartbeat,
    PiecesTold,
    Render,
    Rendered,
    RequestFailed,
    Rerank,
    Reranked,
    StepOutput,
    StreamOutput,
    TellPieces,
    TellTokenIds,
    TokenIdsTold,
    Tokenize,
    Tokenized,
    ToWorker,
)
from tests.fakes.scripted import request, scripted

FACTS = ModelFacts(context_length=100)
END = Finished("stop", Usage(prompt_tokens=1))
T = TypeVar("T")


@dataclass
class FakeChannel:
    sent: list[ToWorker] = field(default_factory=list)

    def send(self, message: ToWorker) -> bool:
        self.sent.append(message)
        return True

    @property
    def aborted(self) -> list[str]:
        return [message.request_id for message in self.sent if isinstance(message, Abort)]


@dataclass
class Stage:
    """A client, the channel it speaks to, and how often it asked for a load."""

    client: WorkerClient
    channel: FakeChannel
    loads: list[None]

    def attach(self) -> None:
        self.client.attach(cast(ParentChannel, self.channel), FACTS)

    def say(self, request_id: str, *events: StreamEvent) -> None:
        for event in events:
            self.client.dispatch(StepOutput([StreamOutput(request_id, event)]))


def make_stage(*, ready: bool = True, **limits: Any) -> Stage:
    loads: list[None] = []
    client = WorkerClient(scripted("m"), Limits(**limits), request_load=lambda: loads.append(None))
    stage = Stage(client, FakeChannel(), loads)
    if ready:
        stage.attach()
    return stage


async def begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a request and let it run until it waits."""
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def collect(stage: Stage, asked: Any) -> list[StreamEvent]:
    return [event async for event in stage.client.generate(asked)]


async def test_a_stream_says_what_the_worker_says() -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))

    stage.say(asked.request_id, Started(1), Delta("a"), END)

    assert await task == [Started(1), Delta("a"), END]
    assert stage.channel.sent == [Generate(asked)]
    assert stage.client.num_requests == 0


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        (Failed("context_length_exceeded", "too long", "messages"), ContextLengthExceeded),
        (Failed("template_error", "no such role", "messages"), InvalidRequest),
        (Failed("model_unavailable", "later"), ModelUnavailable),
    ],
)
async def test_a_failure_is_raised_as_the_error_that_it_was(failed: Failed, error: type[Exception]) -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))

    stage.say(asked.request_id, failed)

    with pytest.raises(error, match=failed.message) as caught:
        await task
    assert (caught.value.code, caught.value.param) == (failed.code, failed.param)  # type: ignore[attr-defined]
    assert stage.channel.aborted == []


async def test_detach_ends_all_requests_in_flight() -> None:
    stage = make_stage()
    tasks = [
        await begin(collect(stage, request())),
        await begin(stage.client.embed(["a"])),
        await begin(stage.client.rerank("q", ["a"])),
    ]

    stage.client.detach()

    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, WorkerCrashed)
    assert stage.client.num_requests == 0


async def test_an_answer_that_came_before_the_crash_counts() -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))

    stage.say(asked.request_id, Started(1), END)
    stage.client.detach()

    assert await task == [Started(1), END]


async def test_after_a_crash_requests_wait_for_the_next_worker() -> None:
    stage, asked = make_stage(), request()
    stage.client.detach()
    task = await begin(collect(stage, asked))
    assert stage.channel.sent == []

    stage.attach()
    await begin(asyncio.sleep(0))
    stage.say(asked.request_id, Started(1), END)

    assert await task == [Started(1), END]


async def test_a_request_that_only_waited_in_a_worker_waits_for_the_next_one() -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))
    stage.say(asked.request_id, Started(1))
    await begin(asyncio.sleep(0))

    stage.client.detach()
    await begin(asyncio.sleep(0))
    stage.attach()
    await begin(asyncio.sleep(0))
    stage.say(asked.request_id, Started(1), Delta("a"), END)

    assert await task == [Started(1), Delta("a"), END]
    assert stage.channel.sent == [Generate(asked), Generate(asked)]


async def test_a_request_that_only_waited_in_a_worker_goes_to_the_heir_if_there_is_one() -> None:
    old, new, asked = make_stage(), make_stage(), request()
    task = await begin(collect(old, asked))
    old.say(asked.request_id, Started(1))
    await begin(asyncio.sleep(0))

    old.client.hand_over(new.client)
    old.client.detach()
    await begin(asyncio.sleep(0))
    new.say(asked.request_id, Started(1), Delta("a"), END)

    assert await task == [Started(1), Delta("a"), END]  # it has started once
    assert new.channel.sent == [Generate(asked)]
    assert (old.client.num_requests, new.client.num_requests) == (0, 0)


@pytest.mark.parametrize("was_echoed", [False, True], ids=["begun", "echoed"])
async def test_a_request_that_has_been_begun_or_said_something_is_not_repeated(*, was_echoed: bool) -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))
    stage.say(asked.request_id, Started(1), *([Delta("the prompt")] if was_echoed else []))
    if not was_echoed:
        stage.client.dispatch(Begun([asked.request_id]))

    stage.client.detach()

    with pytest.raises(WorkerCrashed):
        await task


@pytest.mark.parametrize("has_begun", [True, False])
async def test_a_late_request_says_whether_it_was_begun(*, has_begun: bool) -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))
    stage.say(asked.request_id, Started(1))
    if has_begun:
        stage.client.dispatch(Begun([asked.request_id]))

    stage.say(asked.request_id, Failed(DeadlineExceeded.code, "too late"))

    with pytest.raises(DeadlineExceeded) as late:
        await task
    assert late.value.has_begun == has_begun


async def test_a_request_that_was_in_two_crashes_is_not_tried_again() -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))
    for _ in range(2):
        stage.say(asked.request_id, Started(1))
        stage.client.detach()
        await begin(asyncio.sleep(0))
        stage.attach()
        await begin(asyncio.sleep(0))

    with pytest.raises(WorkerCrashed):
        await task
    assert stage.channel.sent == [Generate(asked), Generate(asked)]
    assert stage.client.num_requests == 0


async def test_requests_that_end_with_their_model_have_errors_of_their_own() -> None:
    """A raised exception takes on a traceback: shared, it would grow and tell of others."""
    stage = make_stage()
    tasks = [await begin(stage.client.embed(["a"])) for _ in range(2)]
    stage.client.set_state("draining")

    stage.client.detach()
    first, second = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(first, ModelUnavailable) and isinstance(second, ModelUnavailable)
    assert first is not second


async def test_closing_a_stream_early_aborts_it() -> None:
    stage, asked = make_stage(), request()
    async with aclosing(stage.client.generate(asked)) as events:
        first = await begin(anext(events))
        stage.say(asked.request_id, Started(1))
        await first

    assert stage.channel.aborted == [asked.request_id]
    assert stage.client.num_requests == 0


async def test_cancelling_a_request_aborts_it() -> None:
    stage, asked = make_stage(), request()
    tasks = [await begin(collect(stage, asked)), await begin(stage.client.embed(["a"]))]

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert stage.channel.aborted == [asked.request_id, cast(Embed, stage.channel.sent[1]).request_id]
    assert stage.client.num_requests == 0


async def test_a_finished_stream_is_not_aborted() -> None:
    stage, asked = make_stage(), request()
    task = await begin(collect(stage, asked))
    stage.say(asked.request_id, Started(1), END)
    await task

    assert stage.channel.aborted == []


async def test_late_words_for_a_request_that_is_gone_are_dropped() -> None:
    stage = make_stage()

    stage.say("gone", Delta("x"))
    stage.client.dispatch(Embedded("gone", b"", 1, 1))

    assert stage.client.num_requests == 0


async def test_one_request_too_many_is_refused_at_once() -> None:
    stage = make_stage(max_queued_requests=2)
    tasks = [await begin(collect(stage, request())) for _ in range(2)]

    with pytest.raises(Overloaded, match="holds 2 requests"):
        await stage.client.embed(["a"])

    assert len(stage.channel.sent) == 2
    stage.client.detach()
    await asyncio.wait(tasks)


async def test_requests_that_wait_for_the_model_count_too() -> None:
    stage = make_stage(ready=False, max_queued_requests=2)
    tasks = [await begin(collect(stage, request())), await begin(stage.client.embed(["a"]))]

    with pytest.raises(Overloaded, match="holds 2 requests"):
        await stage.client.rerank("q", ["a"])

    stage.client.set_state("failed")
    await asyncio.wait(tasks)
    assert stage.client.num_requests == 0


async def test_a_request_to_a_failed_model_asks_for_the_load_too() -> None:
    stage = make_stage(ready=False)
    stage.client.set_state("failed", failure="out of memory")

    with pytest.raises(ModelUnavailable, match="out of memory") as caught:
        await stage.client.embed(["a"])

    assert len(stage.loads) == 1
    assert caught.value.retry_after_s == RETRY_FAILED_AFTER_S


async def test_a_request_to_an_unloaded_model_asks_for_the_load() -> None:
    stage = make_stage(ready=False)
    task = await begin(stage.client.embed(["a"]))

    assert len(stage.loads) == 1
    stage.attach()
    await begin(asyncio.sleep(0))
    request_id = cast(Embed, stage.channel.sent[0]).request_id
    stage.client.dispatch(Embedded(request_id, np.ones(3, "<f4").tobytes(), 3, 1))

    assert (await task).vectors.tolist() == [[1, 1, 1]]


async def test_nobody_waits_longer_than_the_limit_for_a_load() -> None:
    stage = make_stage(ready=False, load_wait_s=0.01)

    with pytest.raises(ModelUnavailable, match="still loading"):
        await stage.client.embed(["a"])


async def test_a_failed_model_says_why_to_new_and_to_waiting_requests() -> None:
    stage = make_stage(ready=False)
    waiting = await begin(stage.client.embed(["a"]))

    stage.client.set_state("failed", failure="the file is damaged")

    for attempt in (waiting, stage.client.embed(["a"])):
        with pytest.raises(ModelUnavailable, match="failed: the file is damaged"):
            await attempt


async def test_embeddings_come_as_rows_in_input_order() -> None:
    stage = make_stage()
    task = await begin(stage.client.embed(["a", "b"], truncate="end", lane="bulk"))
    asked = cast(Embed, stage.channel.sent[0])
    rows = np.arange(6, dtype="<f4")

    stage.client.dispatch(Embedded(asked.request_id, rows.tobytes(), 3, 9, 1, 2))

    result = await task
    np.testing.assert_array_equal(result.vectors, rows.reshape(2, 3))
    assert (asked.inputs, asked.truncate, asked.lane) == (["a", "b"], "end", "bulk")
    assert (result.num_prompt_tokens, result.num_truncated, result.num_cached) == (9, 1, 2)


async def test_tokens_come_for_each_text() -> None:
    stage = make_stage()
    task = await begin(stage.client.tokenize(["a", ""], add_special_tokens=False))
    asked = cast(Tokenize, stage.channel.sent[0])

    stage.client.dispatch(Tokenized(asked.request_id, [[Token(7, "a", 0, 1)], []]))

    assert await task == [[Token(7, "a", 0, 1)], []]
    assert (asked.texts, asked.add_special_tokens) == (["a", ""], False)


async def test_token_ids_come_for_each_text_and_prompt() -> None:
    stage = make_stage()
    task = await begin(stage.client.token_ids(["a", TextPrompt("b")]))
    asked = cast(TellTokenIds, stage.channel.sent[0])

    stage.client.dispatch(TokenIdsTold(asked.request_id, [[7], [1, 8]]))

    assert await task == [[7], [1, 8]]
    assert asked.inputs == ["a", TextPrompt("b")]


async def test_a_rendered_prompt_comes_back_as_it_is() -> None:
    stage, asked = make_stage(), ChatPrompt((ChatMessage(role="user", content="a"),))
    task = await begin(stage.client.render(asked))
    [message] = stage.channel.sent
    rendered = RenderedPrompt([RenderedPart("a", False)], [7])

    stage.client.dispatch(Rendered(cast(Render, message).request_id, rendered))

    assert await task == rendered
    assert cast(Render, message).prompt == asked


async def test_pieces_come_for_each_token() -> None:
    stage = make_stage()
    task = await begin(stage.client.token_pieces([7, 8]))
    asked = cast(TellPieces, stage.channel.sent[0])

    stage.client.dispatch(PiecesTold(asked.request_id, [b"a", b"\xf0"]))

    assert await task == [b"a", b"\xf0"]
    assert asked.token_ids == [7, 8]


async def test_vectors_belong_to_the_caller() -> None:
    stage = make_stage()
    task = await begin(stage.client.embed(["a"]))
    stage.client.dispatch(Embedded(cast(Embed, stage.channel.sent[0]).request_id, bytes(8), 2, 1))

    (await task).vectors[:] = 1  # raises if the array were read-only


async def test_rerank_scores_come_in_document_order() -> None:
    stage = make_stage()
    task = await begin(stage.client.rerank("q", ["a", "b"]))
    asked = cast(Rerank, stage.channel.sent[0])

    stage.client.dispatch(Reranked(asked.request_id, np.array([2, -1], "<f4").tobytes(), 9))

    assert (await task).scores.tolist() == [2, -1]


async def test_a_refused_input_is_raised() -> None:
    stage = make_stage()
    task = await begin(stage.client.rerank("q", ["a", "b"]))
    asked = cast(Rerank, stage.channel.sent[0])

    stage.client.dispatch(RequestFailed(asked.request_id, Failed("context_length_exceeded", "600 tokens")))

    with pytest.raises(ContextLengthExceeded, match="600 tokens"):
        await task


# ---- the processor


ON_CPU = ModelFacts(context_length=100, details={"gpu_layers": "0"})
ON_GPU = ModelFacts(context_length=100, details={"gpu_layers": "all"})
EMBEDDER = ModelConfig(id="e", kind="embedding", backend="llama_cpp", source="file:e.gguf")


def encoder_beside(split: CpuSplit, facts: ModelFacts) -> FakeChannel:
    client = WorkerClient(EMBEDDER, Limits(), request_load=lambda: None, cpu_split=split)
    channel = FakeChannel()
    client.attach(cast(ParentChannel, channel), facts)
    return channel


def chat_beside(split: CpuSplit, facts: ModelFacts) -> Stage:
    client = WorkerClient(scripted("m"), Limits(), request_load=lambda: None, cpu_split=split)
    stage = Stage(client, FakeChannel(), [])
    client.attach(cast(ParentChannel, stage.channel), facts)
    return stage


async def test_encoders_hear_of_a_chat_on_their_processor() -> None:
    split = CpuSplit(0.25)
    before = encoder_beside(split, ON_CPU)
    stage, asked = chat_beside(split, ON_CPU), request()

    task = await begin(collect(stage, asked))
    later, elsewhere = encoder_beside(split, ON_CPU), encoder_beside(split, ON_GPU)
    stage.say(asked.request_id, Started(1), END)
    await task

    assert before.sent == [BulkShare(1.0), BulkShare(0.25)]
    assert later.sent == [BulkShare(0.25)]
    assert elsewhere.sent == []


async def test_a_chat_on_a_gpu_takes_nothing_from_encoders() -> None:
    split = CpuSplit(0.25)
    channel = encoder_beside(split, ON_CPU)
    stage, asked = chat_beside(split, ON_GPU), request()

    task = await begin(collect(stage, asked))
    stage.say(asked.request_id, Started(1), END)
    await task

    assert channel.sent == [BulkShare(1.0)]


async def test_a_rerank_has_no_more_time_than_loading_leaves() -> None:
    stage = make_stage(ready=False)
    task = await begin(stage.client.rerank("q", ["a"], timeout_s=60))
    stage.attach()
    await begin(asyncio.sleep(0))

    [asked] = stage.channel.sent
    assert isinstance(asked, Rerank)
    assert asked.timeout_s is not None
    assert asked.timeout_s < 60
    task.cancel()


async def test_a_rerank_does_not_wait_for_a_model_beyond_its_time() -> None:
    stage = make_stage(ready=False)

    with pytest.raises(DeadlineExceeded, match="did not load"):
        await stage.client.rerank("q", ["a"], timeout_s=0.01)


HURRIED = Asker(tenant="ada", weight=2.0)


async def test_encoders_hear_on_whose_account_they_work() -> None:
    stage = make_stage()
    with asking(HURRIED):
        tasks = [await begin(stage.client.embed(["a"])), await begin(stage.client.rerank("q", ["a"]))]

    embed, rerank = stage.channel.sent
    assert isinstance(embed, Embed) and (embed.tenant, embed.weight) == ("ada", 2.0)
    assert isinstance(rerank, Rerank) and (rerank.tenant, rerank.weight) == ("ada", 2.0)
    stage.client.detach()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("is_ready", [True, False])
async def test_an_encoder_is_not_waited_for_beyond_the_deadline_of_whoever_asks(*, is_ready: bool) -> None:
    stage = make_stage(ready=is_ready)

    with asking(Asker(deadline_at=time.monotonic() + 0.02)), pytest.raises(DeadlineExceeded):
        await stage.client.embed(["a"])

    assert stage.channel.aborted == [each.request_id for each in stage.channel.sent if isinstance(each, Embed)]
    assert stage.client.num_requests == 0


async def test_a_queue_that_takes_too_long_is_full() -> None:
    stage = make_stage(max_wait_s=5.0)
    stage.client.note_heartbeat(Heartbeat(num_steps=0, busy_s=0.0, num_running=0, num_waiting=0, s_per_token=0.01))
    first, second = request("x" * 40), request()
    tasks = [await begin(collect(stage, asked)) for asked in (first, second)]
    stage.say(first.request_id, Started(900))  # now it is known how long the prompt is
    await begin(asyncio.sleep(0))

    with pytest.raises(Overloaded, match="would wait about 9 s") as refused:
        await collect(stage, request())
    assert refused.value.retry_after_s == 9

    stage.say(first.request_id, Delta("a"))  # and nobody has to wait for it any more
    await begin(asyncio.sleep(0))
    tasks.append(await begin(collect(stage, request())))

    stage.client.detach()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_tenants_flood_does_not_fill_the_queue_for_another() -> None:
    stage = make_stage(max_queued_requests=4)
    tasks = [await begin(collect(stage, request())) for _ in range(4)]

    with asking(HURRIED):
        tasks.append(await begin(collect(stage, request())))

    assert len(stage.channel.sent) == 5
    stage.client.detach()
    await asyncio.gather(*tasks, return_exceptions=True)
