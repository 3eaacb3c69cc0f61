"""What one request makes models do, as it is measured."""

from __future__ import annotations

import pytest

from server.access.request_meter import RequestMeter, current_meter, set_current_meter
from server.config.schema import ModelConfig, Prices
from server.errors import RequestCancelled
from server.types import ChatPrompt, Finished, Started, TextPrompt, Timings, Usage

CHAT = ModelConfig(
    id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf", prices=Prices(input=2, output=8)
)
EMBEDDING = ModelConfig(id="embedder", kind="embedding", backend="sentence_transformers", source="file:x")
PROMPT = TextPrompt("once upon")


def counted(meter: RequestMeter) -> list[tuple[str, int, int, int]]:
    uses = meter.record().uses
    return [(use.model, use.prompt_tokens, use.cached_tokens, use.completion_tokens) for use in uses]


def finished(prompt: int, completion: int, cached: int = 0, timings: Timings | None = None) -> Finished:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
    return Finished("stop", usage, timings=timings)


def test_an_answer_counts_as_its_model_counts_it() -> None:
    meter = RequestMeter()
    call = meter.begin(CHAT, PROMPT)
    meter.note_started(call, Started(5))
    call.note_tokens(2, now=1)

    meter.note_finished(call, finished(5, 3, cached=4))

    assert counted(meter) == [("talker", 5, 4, 3)]


def test_an_answer_that_is_cut_counts_as_far_as_it_was_seen() -> None:
    meter = RequestMeter()
    call = meter.begin(CHAT, PROMPT)
    meter.note_started(call, Started(5))
    call.note_tokens(2, now=1)

    meter.end(call, now=2)

    assert counted(meter) == [("talker", 5, 0, 2)]


def test_siblings_have_read_their_prompt_once() -> None:
    """As `total_usage` tells the client: what was cached of it is what the first of them found."""
    meter = RequestMeter()
    calls = [meter.begin(CHAT, PROMPT) for _ in range(3)]
    for call, cached in zip(calls, (4, 0, 5), strict=True):
        meter.note_started(call, Started(5))
        meter.note_finished(call, finished(5, 2, cached=cached))

    assert counted(meter) == [("talker", 5, 0, 6)]


@pytest.mark.parametrize("finishes_first", [True, False])
def test_a_sibling_that_was_dropped_in_the_queue_takes_nothing_from_the_others(*, finishes_first: bool) -> None:
    meter = RequestMeter()
    read, dropped = (meter.begin(CHAT, PROMPT) for _ in range(2))
    for call in (read, dropped):
        meter.note_started(call, Started(5))

    if finishes_first:
        meter.note_finished(read, finished(5, 2, cached=4))
        dropped.note_dropped()
    else:
        dropped.note_dropped()
        meter.note_finished(read, finished(5, 2, cached=4))

    assert counted(meter) == [("talker", 5, 4, 2)]


def test_siblings_that_were_all_dropped_in_the_queue_have_read_nothing() -> None:
    meter = RequestMeter()
    calls = [meter.begin(CHAT, PROMPT) for _ in range(2)]
    for call in calls:
        meter.note_started(call, Started(5))
    for call in calls:
        call.note_dropped()

    assert counted(meter) == [("talker", 0, 0, 0)]


def test_equal_prompts_of_their_own_are_read_each() -> None:
    meter = RequestMeter()
    for prompt in (TextPrompt("a"), TextPrompt("a")):
        meter.note_finished(meter.begin(CHAT, prompt), finished(5, 2))

    assert counted(meter) == [("talker", 10, 0, 4)]


def test_each_model_has_its_own_line_at_its_own_prices() -> None:
    meter = RequestMeter()
    meter.begin(EMBEDDING).note_encoded(7)
    meter.note_finished(meter.begin(CHAT, PROMPT), finished(1_000_000, 500_000))

    embedder, talker = meter.record().uses
    assert (embedder.prompt_tokens, embedder.cost) == (7, 0)
    assert talker.cost == pytest.approx(2 + 4)
    assert meter.record().cost == pytest.approx(6)


def test_a_prompt_whose_deadline_passed_in_the_queue_was_not_read() -> None:
    meter = RequestMeter()
    call = meter.begin(CHAT, PROMPT)
    meter.note_started(call, Started(5))

    call.note_dropped()

    assert counted(meter) == [("talker", 0, 0, 0)]


def test_a_prompt_that_was_being_computed_counts_whoever_drops_it() -> None:
    meter = RequestMeter()
    call = meter.begin(CHAT, PROMPT)
    meter.note_started(call, Started(5))
    call.note_begun()

    call.note_dropped()

    assert counted(meter) == [("talker", 5, 0, 0)]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_sibling_that_only_waited_takes_nothing_from_the_one_that_ran(*, is_first: bool) -> None:
    meter = RequestMeter()
    waiting, running = meter.begin(CHAT, PROMPT), meter.begin(CHAT, PROMPT)
    for call in (waiting, running):
        meter.note_started(call, Started(5))
    if is_first:
        waiting.note_dropped()
    running.note_begun()
    if not is_first:
        waiting.note_dropped()
    running.note_dropped()

    assert counted(meter) == [("talker", 5, 0, 0)]


def test_times_are_of_the_answer_and_not_of_what_was_asked_before_it() -> None:
    """A question is rewritten by the same model first."""
    meter = RequestMeter()
    rewriting = meter.begin(CHAT, PROMPT)
    meter.note_started(rewriting, Started(5, queue_ms=900))
    meter.note_first_token(meter.started_at + 1)
    meter.end(rewriting, now=1)

    answer = meter.begin(CHAT, ChatPrompt(()))
    meter.note_started(answer, Started(5, queue_ms=1))
    meter.note_first_token(meter.started_at + 3)
    timings = Timings(queue_ms=20, tokenize_ms=0, prefill_ms=0, decode_ms=0)
    meter.note_finished(answer, finished(5, 1, timings=timings))

    assert (meter.queue_ms, meter.ttft_ms) == (20, pytest.approx(3000))


def test_the_stage_tells_where_a_request_is() -> None:
    meter = RequestMeter()
    stages = [meter.stage]
    encoding = meter.begin(EMBEDDING)
    stages.append(meter.stage)
    meter.end(encoding, now=0)
    stages.append(meter.stage)
    call = meter.begin(CHAT, PROMPT)
    stages.append(meter.stage)
    meter.note_started(call, Started(5))
    stages.append(meter.stage)
    meter.note_first_token(now=1)
    stages.append(meter.stage)

    assert stages == ["received", "encoding", "answering", "queued", "prefill", "decode"]


def test_the_time_between_tokens_is_an_average() -> None:
    meter = RequestMeter()
    call = meter.begin(CHAT, PROMPT)
    for now in (1.0, 1.1, 1.4):
        call.note_tokens(1, now)

    assert meter.itl_ms == pytest.approx(200)


def test_what_is_cancelled_asks_nothing_more() -> None:
    meter = RequestMeter()
    meter.cancel()

    with pytest.raises(RequestCancelled):
        meter.begin(CHAT, PROMPT)


def test_what_goes_on_after_its_request_is_not_its_any_more() -> None:
    meter = RequestMeter()
    set_current_meter(meter)
    assert current_meter() is meter

    meter.close()

    assert current_meter() is not meter


def test_what_ends_after_its_request_is_not_kept_as_a_request_that_runs() -> None:
    kept: list[RequestMeter] = []
    meter = RequestMeter(on_progress=kept.append)
    call = meter.begin(CHAT, PROMPT)
    meter.note_started(call, Started(5))
    meter.close()

    meter.note_finished(call, finished(5, 2))

    assert kept == [meter]
