"""`/v1/responses`: what is asked of the model, what is answered, what is kept."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.errors import (
    InvalidRequest,
    ModelUnavailable,
    ObjectNotFound,
    StorageError,
    StorageFull,
    StorageUnavailable,
    WorkerCrashed,
)
from server.services.library import LibraryDoor
from server.services.responses import ResponseService
from server.types import (
    NO_TOOLS,
    ChatMessage,
    ChatPrompt,
    Delta,
    Finished,
    GenerateRequest,
    Grammar,
    Started,
    TokenChance,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolUse,
    Usage,
)
from tests.api.conftest import RAG, Stack
from tests.api.test_api_grounded_chat import ANNOTATION, OUTCOME, SEARCH, TEXT
from tests.fakes.asgi import AsgiConnection
from tests.fakes.models import saying
from tests.fakes.responses import check_response, events_of, service_over

pytestmark = pytest.mark.usefixtures("kept_responses")

URL = "/v1/responses"
HELLO: dict[str, Any] = {"model": "talker", "input": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}
TIME = {"type": "function", "name": "time"}
TOOLS = (
    Tool(name="weather", description="d", parameters=json.dumps(SCHEMA, separators=(",", ":")), strict=True),
    Tool(name="time"),
)
CALLING = (
    Started(5),
    Delta(tool_calls=(ToolCallDelta(0, "call_1", "weather"), ToolCallDelta(0, arguments='{"city":"Oslo"}'))),
    Finished("tool_calls", Usage(prompt_tokens=5)),
)


async def answer(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    response = await client.post(URL, json={**HELLO, **request})
    assert response.status_code == 200, response.text
    return check_response(response.json())


async def error_of(client: httpx.AsyncClient, **request: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post(URL, json={**HELLO, **request})
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error


def asked(stack: Stack) -> GenerateRequest:
    return stack.chat.requests[-1]


def prompt_of(stack: Stack) -> ChatPrompt:
    prompt = asked(stack).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def said(text: str = "Hello there") -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def without_ids(value: Any) -> Any:
    """What two answers to one question have in common."""
    if isinstance(value, dict):
        times = ("id", "created_at", "completed_at", "timings_ms")
        return {key: without_ids(each) for key, each in value.items() if key not in times}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


# ---- the answer


async def test_an_answer_has_openais_shape(client: httpx.AsyncClient) -> None:
    body = await answer(client)

    assert body["id"].startswith("resp_") and body["output"][0]["id"].startswith("msg_")
    assert body["completed_at"] >= body["created_at"] > 1_700_000_000
    assert without_ids(body) == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "talker",
        "output": [
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello there", "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
        "user": None,
    }


@pytest.mark.parametrize("more", [{}, {"tools": [SEARCH], "include": ["file_search_call.results"]}, {"tools": [TIME]}])
async def test_a_stream_ends_with_what_the_whole_answer_says(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any]
) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = saying("Knead ", "for ten minutes [1].")
    whole = await answer(client, **more)

    streamed = events_of(await client.post(URL, json={**HELLO, **more, "stream": True}))

    assert [event["type"] for event in streamed[:2]] == ["response.created", "response.in_progress"]
    assert streamed[0]["response"]["status"] == "in_progress"
    assert streamed[-1]["type"] == "response.completed"
    assert without_ids(streamed[-1]["response"]) == without_ids(whole)
    assert {event["response"]["id"] for event in streamed if "response" in event} == {streamed[0]["response"]["id"]}


async def test_an_answer_repeats_what_was_asked(client: httpx.AsyncClient) -> None:
    format_ = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
    request = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "max_tool_calls": 3,
        "metadata": {"topic": "weather"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.25,
        "text": {"format": format_, "verbosity": "medium"},
        "tool_choice": {"type": "function", "name": "weather"},
        "tools": [WEATHER],
        "top_p": 0.5,
        "user": "u",
    }

    body = await answer(client, **request)

    assert {name: body[name] for name in request} == request


async def test_what_reaches_the_model(client: httpx.AsyncClient, stack: Stack) -> None:
    await answer(
        client,
        instructions="Be brief.",
        max_output_tokens=9,
        max_tokens=8,
        temperature=0.25,
        top_p=0.5,
        reasoning={"effort": "low", "summary": "auto"},
        seed=7,
        priority=2,
        timeout_s=3,
    )

    prompt, sampling = prompt_of(stack), asked(stack).sampling
    assert prompt.messages == (ChatMessage(role="system", content="Be brief."), user("Hi"))
    assert prompt.reasoning_effort == "low"
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (9, 0.25, 0.5, 7)
    assert (asked(stack).urgency.priority, asked(stack).urgency.timeout_s) == (2, 3)


@pytest.mark.parametrize(
    ("text", "grammar"),
    [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, Grammar("json_object", "", "text.format")),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            Grammar("json_schema", '{"type":"object"}', "text.format"),
        ),
        ({"verbosity": "medium"}, None),
        (None, None),
    ],
)
async def test_the_model_is_told_what_the_text_has_to_be(
    client: httpx.AsyncClient, stack: Stack, text: Any, grammar: Grammar | None
) -> None:
    await answer(client, text=text)

    assert asked(stack).grammar == grammar


@pytest.mark.parametrize("top", [0, 1])
async def test_log_probabilities_are_given_to_those_who_ask(client: httpx.AsyncClient, stack: Stack, top: int) -> None:
    likely, other = TokenChance(b"Hi", -0.5), TokenChance(b"\xf0", -1.5)
    tokens = (TokenLogprob(likely, (likely, other)[:top]), TokenLogprob(other))
    stack.chat.steps = (Started(5), Delta("Hi", logprobs=tokens[:1]), Delta("!", logprobs=tokens[1:]), *saying()[-1:])
    request = {**HELLO, "include": ["message.output_text.logprobs"], "top_logprobs": top, "stream": True}

    *events, last = events_of(await client.post(URL, json=request))

    assert asked(stack).sampling.num_logprobs == top
    given = last["response"]["output"][0]["content"][0]["logprobs"]
    first = {"token": "Hi", "bytes": [72, 105], "logprob": -0.5}
    assert given == [
        {**first, "top_logprobs": [first][:top]},
        {"token": "\ufffd", "bytes": [240], "logprob": -1.5, "top_logprobs": []},
    ]
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [each for event in told for each in event] == given
    assert [event["logprobs"] for event in events if event["type"] == "response.output_text.done"] == [given]


async def test_what_is_cut_is_incomplete(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = saying("Hel", reason="length")

    body = await answer(client)

    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete"
    assert body["completed_at"] is None


# ---- the conversation


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([{"role": "user", "content": "Hi"}], (user("Hi"),)),
        (
            [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]}],
            (ChatMessage(role="developer", content="a"),),
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
            (user("a\nb"),),
        ),
        (
            [
                {"role": "user", "content": "a"},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "b", "annotations": [ANNOTATION], "logprobs": []}],
                },
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "c"}]},
            ],
            (user("a"), said("b"), said("c")),
        ),
        (
            [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "h"}],
                },
                {"role": "assistant", "content": "b"},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "status": "completed"},
                {"type": "function_call_output", "call_id": "c2", "output": "two"},
                {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
            ],
            (
                ChatMessage(
                    role="assistant",
                    content="b",
                    reasoning="h",
                    tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")),
                ),
                ChatMessage(role="tool", content="two", name="g", tool_call_id="c2"),
                ChatMessage(role="tool", content="one", name="f", tool_call_id="c1"),
            ),
        ),
        (
            [
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{", "status": "incomplete"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "nothing came of it"}]},
                {"role": "user", "content": "a"},
                {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": None},
            ],
            (user("a"),),
        ),
    ],
)
async def test_items_make_a_conversation(
    client: httpx.AsyncClient, stack: Stack, items: list[Any], messages: tuple[ChatMessage, ...]
) -> None:
    await answer(client, input=items)

    assert prompt_of(stack).messages == messages


async def test_a_conversation_goes_on_without_its_instructions(client: httpx.AsyncClient, stack: Stack) -> None:
    first = await answer(client, instructions="Be brief.")
    second = await answer(client, input="And?", previous_response_id=first["id"])

    await answer(client, input="So?", previous_response_id=second["id"], instructions="Be rude.")

    assert second["previous_response_id"] == first["id"]
    assert prompt_of(stack).messages == (
        ChatMessage(role="system", content="Be rude."),
        user("Hi"),
        said(),
        user("And?"),
        said(),
        user("So?"),
    )


async def test_going_on_is_the_same_as_sending_everything(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Look.", reasoning="Hm."), *CALLING[1:])
    first = await answer(client, tools=[WEATHER])
    result = {"type": "function_call_output", "call_id": "call_1", "output": "snow"}

    await answer(client, input=[result], previous_response_id=first["id"], tools=[WEATHER])
    await answer(client, input=[{"role": "user", "content": "Hi"}, *first["output"], result], tools=[WEATHER])

    _, by_id, by_items = stack.chat.requests
    assert by_id.prompt == by_items.prompt


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_answered_in_the_next_response(
    client: httpx.AsyncClient, stack: Stack, *, stream: bool
) -> None:
    stack.chat.steps = CALLING
    response = await client.post(URL, json={**HELLO, "tools": [WEATHER], "stream": stream})
    first = events_of(response)[-1]["response"] if stream else response.json()
    output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "snow"}

    await answer(client, input=[output], previous_response_id=first["id"], tools=[WEATHER])

    assert prompt_of(stack).messages == (
        user("Hi"),
        ChatMessage(role="assistant", tool_calls=(ToolCall("call_1", "weather", '{"city":"Oslo"}'),)),
        ChatMessage(role="tool", content="snow", name="weather", tool_call_id="call_1"),
    )


async def test_a_whole_output_may_be_sent_back(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = (Started(5), Delta("Knead [1].", reasoning="Hm."), *CALLING[1:])
    first = await answer(
        client, tools=[SEARCH, WEATHER], include=["file_search_call.results"], model="talker", store=False
    )
    assert [item["type"] for item in first["output"]] == [
        "file_search_call",
        "reasoning",
        "message",
        "function_call",
    ]

    await answer(client, input=[{"role": "user", "content": "Hi"}, *first["output"]])

    assert prompt_of(stack).messages[1:] == (
        ChatMessage(
            role="assistant",
            content="Knead [1].",
            reasoning="Hm.",
            tool_calls=(ToolCall("call_1", "weather", '{"city":"Oslo"}'),),
        ),
    )


async def test_references_stand_for_stored_items(client: httpx.AsyncClient, stack: Stack) -> None:
    first = await answer(client)
    message_id = first["output"][0]["id"]

    second = await answer(client, input=[{"id": message_id}, {"type": "item_reference", "id": message_id}])

    assert prompt_of(stack).messages == (said(), said())
    listed = (await client.get(f"{URL}/{second['id']}/input_items")).json()["data"]
    assert [item["content"][0]["text"] for item in listed] == ["Hello there"] * 2


async def test_an_output_of_no_call_is_refused(client: httpx.AsyncClient) -> None:
    output = {"type": "function_call_output", "call_id": "c9", "output": "snow"}

    status, error = await error_of(client, input=[output])

    assert (status, error["param"]) == (400, "input")
    assert "'c9'" in error["message"]


# ---- tools


def allowed(*tools: Any, mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


NAMED = {"type": "function", "name": "time"}


@pytest.mark.parametrize(
    ("more", "use"),
    [
        ({}, ToolUse(tools=TOOLS, names=("weather", "time"))),
        ({"parallel_tool_calls": False}, ToolUse(tools=TOOLS, names=("weather", "time"), is_parallel=False)),
        ({"tool_choice": "none"}, NO_TOOLS),
        ({"tool_choice": "required"}, ToolUse(tools=TOOLS, names=("weather", "time"), is_required=True)),
        ({"tool_choice": NAMED}, ToolUse(tools=TOOLS, names=("time",), is_required=True, is_parallel=False)),
        ({"tool_choice": allowed(NAMED)}, ToolUse(tools=TOOLS, names=("time",))),
        (
            {"tool_choice": allowed(NAMED, mode="required")},
            ToolUse(tools=TOOLS, names=("time",), is_required=True),
        ),
    ],
)
async def test_a_choice_says_what_may_and_must_be_called(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], use: ToolUse
) -> None:
    await answer(client, tools=[WEATHER, TIME], **more)

    assert prompt_of(stack).tool_use == use


@pytest.mark.parametrize(
    ("choice", "searches", "names"),
    [
        ("auto", True, ("time",)),
        ("required", True, ("time",)),
        (NAMED, True, ("time",)),
        ({"type": "file_search"}, True, ()),
        (allowed({"type": "file_search"}), True, ()),
        (allowed({"type": "file_search"}, NAMED), True, ("time",)),
        (allowed(NAMED), False, ("time",)),
        ("none", False, ()),
    ],
)
async def test_a_choice_says_whether_files_are_searched(
    client: httpx.AsyncClient, stack: Stack, choice: Any, *, searches: bool, names: tuple[str, ...]
) -> None:
    stack.stores.outcome = OUTCOME

    body = await answer(client, tools=[SEARCH, TIME], tool_choice=choice)

    assert ("search_together" in [call[0] for call in stack.stores.calls]) is searches
    assert ("file_search_call" in [item["type"] for item in body["output"]]) is searches
    assert prompt_of(stack).tool_use.names == names


async def test_a_search_shows_what_the_answer_rests_on(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = saying("Knead ", "for ten minutes [1].", " And [7]")

    body = await answer(client, input="How long?", tools=[SEARCH], include=["file_search_call.results"])

    search, message = body["output"]
    assert search["queries"] == ["How long?"]
    [result] = search["results"]
    assert (result["file_id"], result["filename"], result["score"], result["text"]) == (
        "file-1",
        "bread.pdf",
        0.75,
        TEXT,
    )
    assert message["content"][0]["text"] == "Knead for ten minutes [1]. And"
    assert message["content"][0]["annotations"] == [ANNOTATION]


async def test_a_rag_model_tells_of_its_search(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.rag_models, stack.stores.outcome = (RAG,), OUTCOME
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as asker:
        body = await answer(asker, model="handbook")

    assert body["model"] == "handbook"
    assert [item["type"] for item in body["output"]] == ["file_search_call", "message"]


# ---- what is refused


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"input": []}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": [5]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0].encrypted_content", None),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}]},
            "input[0].output",
            "unsupported_value",
        ),
        ({"input": [{"type": "reasoning"}]}, "input", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"conversation": "conv_1"}, "conversation", None),
        ({"background": True}, "background", None),
        ({"truncation": "auto"}, "truncation", None),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"prompt": {"id": "p"}}, "prompt", None),
        ({"ignore_eos": True}, "ignore_eos", None),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", None),
        ({"reasoning": {"effort": "maximal"}}, "reasoning.effort", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", None),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{**TIME, "defer_loading": True}]}, "tools[0].defer_loading", None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0]", "invalid_value"),
        ({"tools": [TIME, TIME]}, "tools", "invalid_value"),
        ({"tools": [SEARCH, SEARCH]}, "tools", "invalid_value"),
        ({"tools": [{**SEARCH, "filters": {"type": "like"}}]}, "tools[0].filters.type", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tool_choice": NAMED, "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "file_search"}, "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice", "invalid_value"),
        ({"tool_choice": allowed()}, "tool_choice", "invalid_value"),
        ({"tool_choice": allowed({"type": "mcp"})}, "tool_choice", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_wrong_is_refused_by_name(
    client: httpx.AsyncClient, stack: Stack, more: dict[str, Any], param: str, code: str | None, *, stream: bool
) -> None:
    status, error = await error_of(client, **more, stream=stream)

    assert (status, error["param"], error["code"]) == (400, param, code or "unsupported_parameter"), error
    assert stack.chat.requests == []


@pytest.mark.parametrize(
    "more",
    [
        {"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]},
        {"background": False, "truncation": "disabled", "top_logprobs": 0, "conversation": None},
        {"service_tier": "flex", "prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}},
        {"stream_options": {"include_obfuscation": True}},
        {"tool_choice": "auto"},
        {"tools": [{**TIME, "parameters": None, "strict": None}], "tool_choice": "none"},
        {"reasoning": {"effort": None, "summary": None}, "text": {}},
    ],
)
async def test_what_changes_nothing_is_taken(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    await answer(client, **more)


@pytest.mark.parametrize(
    ("chats", "ours"),
    [
        ("messages", "input"),
        ("reasoning_effort", "reasoning.effort"),
        ("tools[1].function.parameters", "tools[2].parameters"),
        ("tools", "tools"),
        (None, None),
    ],
)
async def test_errors_of_the_layers_below_name_the_fields_of_this_api(
    client: httpx.AsyncClient, stack: Stack, chats: str | None, ours: str | None
) -> None:
    stack.stores.outcome = OUTCOME
    stack.chat.steps = (InvalidRequest("it is wrong", param=chats),)

    status, error = await error_of(client, tools=[TIME, SEARCH, WEATHER])

    assert (status, error["param"]) == (400, ours)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ModelUnavailable("loading"), 503), (InvalidRequest("no", param="messages"), 400)],
)
async def test_a_refusal_before_the_answer_keeps_its_status(
    client: httpx.AsyncClient, stack: Stack, error: Any, status: int, *, stream: bool
) -> None:
    stack.chat.steps = (error,)

    answered, body = await error_of(client, stream=stream)

    assert (answered, body["code"]) == (status, error.code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerCrashed("the worker has died"), "server_error"),
        (InvalidRequest("the grammar costs too much", param="text.format"), "invalid_prompt"),
    ],
)
async def test_an_error_inside_a_stream_is_its_last_event(
    client: httpx.AsyncClient, stack: Stack, error: Any, code: str
) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), error)

    *_, last = events_of(await client.post(URL, json={**HELLO, "stream": True}))

    response = check_response(last["response"])
    assert (last["type"], response["status"]) == ("response.failed", "failed")
    assert (response["error"]["code"], response["error"]["message"]) == (code, error.message)
    assert response["error"]["x"] == {"code": error.code}
    assert response["output"][0]["content"][0]["text"] == "Hel"
    assert (await client.get(f"{URL}/{response['id']}")).status_code == 404


async def test_an_error_in_the_middle_of_a_whole_answer_is_an_error(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), WorkerCrashed("the worker has died"))

    status, error = await error_of(client)

    assert (status, error["code"]) == (503, "worker_crashed")


async def test_a_client_that_leaves_ends_the_work(stack: Stack) -> None:
    stack.chat.steps = (Started(5), Delta("Hel"), stack.embedder.begun)  # an event that never comes
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": True})
    await connection.read_status()

    connection.disconnect()
    await connection.done

    assert stack.chat.aborted == [stack.chat.requests[0].request_id]


# ---- what is kept


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_kept_is_what_was_given(client: httpx.AsyncClient, *, stream: bool) -> None:
    response = await client.post(URL, json={**HELLO, "stream": stream, "metadata": {"a": "b"}})
    given = events_of(response)[-1]["response"] if stream else response.json()

    kept = await client.get(f"{URL}/{given['id']}")

    assert kept.json() == given


async def test_what_shall_not_be_kept_is_not(client: httpx.AsyncClient) -> None:
    body = await answer(client, store=False)

    assert body["store"] is False
    assert (await client.get(f"{URL}/{body['id']}")).status_code == 404


async def test_what_is_deleted_is_gone(client: httpx.AsyncClient) -> None:
    response_id = (await answer(client))["id"]

    deleted = await client.delete(f"{URL}/{response_id}")

    assert deleted.json() == {"id": response_id, "object": "response", "deleted": True}
    assert (await client.get(f"{URL}/{response_id}")).status_code == 404
    assert (await client.delete(f"{URL}/{response_id}")).status_code == 404
    status, error = await error_of(client, previous_response_id=response_id)
    assert (status, error["param"], error["code"]) == (404, "previous_response_id", "not_found")


async def test_what_was_sent_is_listed(client: httpx.AsyncClient) -> None:
    items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    response_id = (await answer(client, input=items))["id"]

    newest = (await client.get(f"{URL}/{response_id}/input_items?limit=2")).json()
    oldest = (await client.get(f"{URL}/{response_id}/input_items?order=desc&after={newest['last_id']}")).json()

    assert [item["content"] for item in newest["data"]] == [
        [{"type": "input_text", "text": "c"}],
        [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}],
    ]
    assert (newest["has_more"], oldest["has_more"], oldest["data"][0]["role"]) == (True, False, "user")
    assert oldest["data"][0]["id"].startswith("msg_")


@pytest.mark.parametrize(
    ("path", "param"),
    [("", "stream=true"), ("", "starting_after=3"), ("/input_items", "limit=0"), ("/input_items", "after=nobody")],
)
async def test_a_wrong_query_is_refused_by_name(client: httpx.AsyncClient, path: str, param: str) -> None:
    response_id = (await answer(client))["id"]

    response = await client.get(f"{URL}/{response_id}{path}?{param}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, param.partition("=")[0])


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_none"},
        {"input": [{"role": "user", "content": "a"}, {"type": "item_reference", "id": "msg_none"}]},
    ],
)
async def test_what_is_not_kept_is_not_found(client: httpx.AsyncClient, stack: Stack, more: dict[str, Any]) -> None:
    status, error = await error_of(client, **more)

    assert (status, error["code"]) == (404, "not_found")
    assert error["param"] in ("previous_response_id", "input[1].id")
    assert stack.chat.requests == []


class _FullStore:
    """Takes nothing more."""

    async def add(self, _tenant: str, _response: object) -> None:
        raise StorageFull("no room is left")

    async def get(self, _tenant: str, response_id: str) -> None:
        raise ObjectNotFound(response_id)


async def test_an_answer_that_cannot_be_kept_is_not_acknowledged(stack: Stack) -> None:
    stack.responses = service_over(_FullStore())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        status, error = await error_of(client)
        *others, last = events_of(await client.post(URL, json={**HELLO, "stream": True}))

    assert (status, error["code"]) == (507, "storage_full")
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["x"] == {"code": "storage_full"}
    assert "response.completed" not in [event["type"] for event in others]


@pytest.mark.parametrize("reason", [StorageUnavailable("not open"), StorageFull("no room is left")])
async def test_without_a_data_directory_only_what_is_not_kept_is_answered(stack: Stack, reason: StorageError) -> None:
    door = LibraryDoor()
    door.shut(reason)
    stack.responses = ResponseService(door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        status, error = await error_of(client)
        assert stack.chat.requests == []
        await answer(client, store=False)

    assert (status, error["code"]) == (507 if isinstance(reason, StorageFull) else 503, reason.code)
    assert '"store": false' in error["message"]
