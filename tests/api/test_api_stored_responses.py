"""`/v1/responses/{response_id}`: what is kept, and what is not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.errors import ObjectNotFound, StorageError, StorageFull, StorageUnavailable
from server.services.library import LibraryDoor
from server.services.responses import ResponseService
from tests.api.conftest import Stack
from tests.api.response_requests import HELLO, URL, answer, error_of
from tests.fakes.responses import events_of, service_over

pytestmark = pytest.mark.usefixtures("kept_responses")


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
