from __future__ import annotations

from typing import get_args

import pytest

from server.types import (
    ChatMessage,
    ChatPrompt,
    Delta,
    EncoderCounts,
    Failed,
    Finished,
    GenerateRequest,
    ModelFacts,
    Prompt,
    RenderedPart,
    RenderedPrompt,
    SamplingParams,
    Started,
    StreamEvent,
    TemplateOption,
    TextPrompt,
    Timings,
    Token,
    TokenChance,
    TokenLogprob,
    TokensPrompt,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from server.workers.messages import (
    Abort,
    Begun,
    BulkShare,
    Embed,
    Embedded,
    FromWorker,
    Generate,
    Heartbeat,
    LoadError,
    PiecesTold,
    Ready,
    Render,
    Rendered,
    RequestFailed,
    Rerank,
    Reranked,
    Shutdown,
    StepOutput,
    StreamOutput,
    TellPieces,
    TellTokenIds,
    TokenIdsTold,
    Tokenize,
    Tokenized,
    ToWorker,
    WeightsRead,
    encoder,
    from_worker_decoder,
    to_worker_decoder,
)

CALL = ToolCall("call_1", "weather", '{"city": "Köln"}')
MESSAGES = (
    ChatMessage(role="system", content="be brief 😀\0"),
    ChatMessage(role="assistant", tool_calls=(CALL,)),
    ChatMessage(role="tool", content="rain", tool_call_id="call_1", name="weather"),
)
SAMPLING = SamplingParams(max_tokens=3, temperature=0.1, logit_bias={17: -100.0}, seed=-1, stop=("a", "b"))
SIBLING = SamplingParams(seed=2**63 + 14, num_logprobs=0)  # the last sibling of the largest seed
TOOL_USE = ToolUse(tools=(Tool(name="weather", strict=True), Tool(name="time")), names=("time",), is_required=True)
OPTIONS: dict[str, TemplateOption] = {"a": "b", "c": 1, "d": 0.5, "e": True}
PROMPTS: list[Prompt] = [
    ChatPrompt(MESSAGES),
    ChatPrompt(MESSAGES, TOOL_USE, "low", OPTIONS),
    TextPrompt("<|im_start|>"),
    TextPrompt("def f(", "return 1"),
    TextPrompt("a", adds_bos=False, parses_special=False),
    TokensPrompt([0, 1, 2**31 - 1]),
]
EVENTS: list[StreamEvent] = [
    Started(5),
    Started(5, queue_ms=0.5, tokenize_ms=1.5),
    Delta("text"),
    Delta("é", logprobs=(TokenLogprob(TokenChance(b"\xc3", -0.5), (TokenChance(b"e", -1.5),)),)),
    Delta(
        tool_calls=(ToolCallDelta(1, CALL.id, CALL.name), ToolCallDelta(1, arguments=CALL.arguments)), reasoning="hm"
    ),
    Finished("tool_calls", Usage(prompt_tokens=1, completion_tokens=2, cached_tokens=1)),
    Finished("stop", Usage(prompt_tokens=1), timings=Timings(queue_ms=1, tokenize_ms=0.5, prefill_ms=2.5, decode_ms=0)),
    Failed("context_length_exceeded", "too long", "messages"),
]
TO_WORKER: list[ToWorker] = [
    *(Generate(GenerateRequest(request_id="r", prompt=prompt, sampling=SAMPLING)) for prompt in PROMPTS),
    Generate(GenerateRequest(request_id="s", prompt=PROMPTS[0], sampling=SIBLING, echoes=True, prediction="text")),
    Embed("e", ["a", ""], truncate="mean", prompt="query: ", lane="bulk", normalize=False),
    Embed("t", [[0, 1, 2**31 - 1], [7]]),
    Embed("b", ["a"], prompt=""),
    Tokenize("t", ["a", ""], add_special_tokens=False),
    TellTokenIds("i", ["a", "", *PROMPTS]),
    Render("n", ChatPrompt(MESSAGES, TOOL_USE)),
    TellPieces("p", [0, 2**31 - 1]),
    BulkShare(0.25),
    Rerank("k", "query", ["a", "b"], truncate="end", lane="bulk", max_tokens_per_doc=9, timeout_s=0.5),
    Abort("r"),
    Shutdown(),
]
FROM_WORKER: list[FromWorker] = [
    Ready(
        ModelFacts(context_length=8192, dimensions=3, prompts={"query": "q: "}, load_s=0.5, details={"threads": "2"})
    ),
    WeightsRead(0.5),
    LoadError("no such file"),
    Heartbeat(num_steps=3, busy_s=0.25, num_running=1, num_waiting=2, encoded=EncoderCounts(num_batches=3)),
    StepOutput([StreamOutput(str(n), event) for n, event in enumerate(EVENTS)]),
    Begun(["r", "s"]),
    Embedded("e", b"\0\1\2\3", 1, 7, num_truncated=1, num_cached=2),
    Reranked("k", b"\0\1\2\3", 7, num_truncated=1, num_cached=2, num_cached_tokens=5),
    Tokenized("t", [[Token(101, "[CLS]"), Token(7, "a", 0, 1)], []]),
    TokenIdsTold("i", [[1, 2**31 - 1], []]),
    Rendered("n", RenderedPrompt([RenderedPart("<s>", True), RenderedPart("a", False)], [1, 7])),
    PiecesTold("p", [b"", b"\xf0\x9f"]),
    RequestFailed("e", Failed("invalid_value", "empty")),
]


@pytest.mark.parametrize("message", TO_WORKER, ids=repr)
def test_what_the_parent_sends_arrives(message: ToWorker) -> None:
    assert to_worker_decoder.decode(encoder.encode(message)) == message


@pytest.mark.parametrize("message", FROM_WORKER, ids=repr)
def test_what_the_worker_sends_arrives(message: FromWorker) -> None:
    assert from_worker_decoder.decode(encoder.encode(message)) == message


def test_no_message_is_missing_above() -> None:
    assert {type(message) for message in TO_WORKER} == set(get_args(ToWorker))
    assert {type(message) for message in FROM_WORKER} == set(get_args(FromWorker))
    assert {type(prompt) for prompt in PROMPTS} == set(get_args(Prompt))
