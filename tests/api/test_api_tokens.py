"""Tokens and prompts, as llama-server, vLLM and text-embeddings-inference tell them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.types import ChatMessage, ChatPrompt, TextPrompt
from tests.api.conftest import RAG, Stack

HI = [{"role": "user", "content": "hi you"}]


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", ["/v1/tokenize", "/tokenize"])
async def test_content_is_tokenised_as_llama_server_does(client: httpx.AsyncClient, path: str) -> None:
    bare = await post(client, path, content="ab")
    begun = await post(client, path, content="ab", add_special=True)

    assert (bare["tokens"], begun["tokens"]) == ([97, 98], [1, 97, 98])


async def test_a_prompt_is_tokenised_as_vllm_does(client: httpx.AsyncClient) -> None:
    body = await post(client, "/tokenize", model="openai/talker", prompt="ab", return_token_strs=True)

    assert body == {
        "model": "talker",
        "count": 3,
        "max_model_len": 4096,
        "tokens": [1, 97, 98],
        "token_strs": ["\x01", "a", "b"],
    }


async def test_messages_have_the_tokens_of_a_chat(client: httpx.AsyncClient) -> None:
    body = await post(client, "/tokenize", model="talker", messages=HI)

    assert body["tokens"] == [0, 2, 3, 0]


async def test_pieces_that_are_not_utf8_are_bytes(client: httpx.AsyncClient) -> None:
    body = await post(client, "/v1/tokenize", content="é!", with_pieces=True)

    assert body["tokens"] == [
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA9, "piece": [0xA9]},
        {"id": 0x21, "piece": "!"},
    ]


async def test_what_is_asked_of_the_model_says_whether_control_strings_count(
    client: httpx.AsyncClient, stack: Stack
) -> None:
    seen: list[Any] = []
    token_ids = stack.chat.token_ids

    async def noted(inputs: Any) -> Any:
        seen.extend(inputs)
        return await token_ids(inputs)

    stack.chat.token_ids = noted  # type: ignore[method-assign]

    await post(client, "/tokenize", content="a", parse_special=False)
    await post(client, "/tokenize", prompt="a", add_special_tokens=False)
    await post(client, "/tokenize", messages=HI)

    assert seen == [
        TextPrompt("a", adds_bos=False, parses_special=False),
        TextPrompt("a", adds_bos=False),
        ChatPrompt((ChatMessage(role="user", content="hi you"),)),
    ]


async def test_an_empty_text_has_no_tokens(client: httpx.AsyncClient) -> None:
    assert (await post(client, "/tokenize", content=""))["tokens"] == []


@pytest.mark.parametrize("path", ["/v1/detokenize", "/detokenize"])
async def test_a_code_point_that_is_cut_becomes_a_replacement(client: httpx.AsyncClient, path: str) -> None:
    body = await post(client, path, tokens=[0x61, 0xC3, 0xA9, 0xC3])

    assert body == {"content": "aé\ufffd", "prompt": "aé\ufffd"}


@pytest.mark.parametrize("path", ["/v1/chat/apply_template", "/chat/apply_template"])
async def test_a_rendered_prompt_tells_what_is_the_templates(client: httpx.AsyncClient, path: str) -> None:
    body = await post(client, path, model="talker", messages=HI, temperature=0, stream=True)

    assert body["prompt"] == "<user>hi you</>"
    assert [part["parses_special"] for part in body["parts"]] == [True, False, True]
    assert (body["tokens"], body["count"], body["max_model_len"]) == ([0, 2, 3, 0], 4, 4096)


async def test_a_rag_model_has_the_vocabulary_of_its_chat_model(stack: Stack) -> None:
    stack.rag_models = (RAG,)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        body = await post(client, "/tokenize", model="handbook", content="a")
        refused = await client.post("/v1/chat/apply_template", json={"model": "handbook", "messages": HI})

    assert body["model"] == "talker"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": "a", "prompt": "b"}, "prompt"),
        ("/tokenize", {"content": "a", "model": "embedder"}, "model"),
        ("/tokenize", {"content": 1}, "content"),
        ("/tokenize", {"messages": HI, "continue_final_message": True}, "continue_final_message"),
        (
            "/tokenize",
            {
                "messages": [
                    *HI,
                    {"role": "assistant", "content": "a"},
                    *HI,
                    {"role": "assistant", "content": "b", "prefix": False},
                ]
            },
            "messages",
        ),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**31]}, "tokens[0]"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {"tokens": [256]}, "tokens"),
        ("/detokenize", {"tokens": "1"}, "tokens"),
        ("/detokenize", {"tokens": [1] * (2**18 + 1)}, "tokens"),
        ("/v1/chat/apply_template", {"model": "talker"}, "messages"),
        ("/v1/chat/apply_template", {"model": "talker", "messages": HI, "documents": ["a"]}, "documents"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    response = await client.post(path, json=body)

    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
