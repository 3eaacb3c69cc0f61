"""What is stored of responses, for how long, and for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import InvalidRequest, ObjectNotFound
from server.storage import response_store
from server.storage.response_store import RETENTION_S, ResponseStore, StoredItem, StoredResponse
from tests.fakes.responses import open_responses

ADA, BOB = "ada", "bob"


def response(name: str, previous: str | None = None, *, text: str = "") -> StoredResponse:
    """One item in, one item out: their bodies are `<name>?` and `<name>!`."""
    return StoredResponse(
        id=name,
        previous_id=previous,
        created_at=1,
        body=f"{name}{text}",
        inputs=(StoredItem(f"in {name}", f"{name}?"),),
        outputs=(StoredItem(f"out {name}", f"{name}!"),),
    )


async def ids_left(store: ResponseStore, *ids: str) -> list[str]:
    left = []
    for id_ in ids:
        try:
            await store.get(ADA, id_)
        except ObjectNotFound:
            continue
        left.append(id_)
    return left


async def test_a_response_is_read_as_it_was_kept(tmp_path: Path) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))

        assert await store.get(ADA, "a") == ("a", ["a!"])
    async with open_responses(tmp_path) as store:
        assert await store.get(ADA, "a") == ("a", ["a!"])


async def test_a_conversation_is_all_that_led_to_a_response(tmp_path: Path) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))
        await store.add(ADA, response("b", "a"))
        await store.add(ADA, response("other", "a"))
        await store.add(ADA, response("c", "b"))

        assert await store.conversation(ADA, "c") == ["a?", "a!", "b?", "b!", "c?", "c!"]


async def test_others_see_nothing(tmp_path: Path) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))
        await store.add(BOB, response("b", "a"))  # nobody checks that on the way in

        for ask in (
            store.get(BOB, "a"),
            store.conversation(BOB, "b"),
            store.inputs(BOB, "a", limit=1, order="asc"),
            store.delete(BOB, "a"),
        ):
            with pytest.raises(ObjectNotFound):
                await ask
        assert await store.items(BOB, ["in a", "out b"]) == {"out b": "b!"}
        assert await ids_left(store, "a") == ["a"]


async def test_what_is_deleted_ends_the_conversations_that_went_on_from_it(tmp_path: Path) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))
        await store.add(ADA, response("b", "a"))

        await store.delete(ADA, "a")

        with pytest.raises(ObjectNotFound, match="'a', from which response 'b' goes on") as missing:
            await store.conversation(ADA, "b")
        assert missing.value.param == "previous_response_id"
        assert await store.get(ADA, "b") == ("b", ["b!"])
        assert await store.items(ADA, ["in a", "out a"]) == {}


async def test_items_are_found_as_they_were_kept_last(tmp_path: Path) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))
        again = StoredResponse(
            id="b", previous_id=None, created_at=1, body="b", inputs=(StoredItem("out a", "new"),), outputs=()
        )
        await store.add(ADA, again)

        assert await store.items(ADA, ["out a", "in a", "none"]) == {"out a": "new", "in a": "a?"}


@pytest.mark.parametrize(
    ("order", "after", "bodies", "has_more"),
    [
        ("asc", None, ["1", "2"], True),
        ("asc", "i2", ["3"], False),
        ("desc", None, ["3", "2"], True),
        ("desc", "i2", ["1"], False),
    ],
)
async def test_what_was_sent_is_listed_by_pages(
    tmp_path: Path, order: str, after: str | None, bodies: list[str], *, has_more: bool
) -> None:
    async with open_responses(tmp_path) as store:
        inputs = tuple(StoredItem(f"i{number}", str(number)) for number in (1, 2, 3))
        outputs = (StoredItem("o", "out"),)
        await store.add(
            ADA, StoredResponse(id="a", previous_id=None, created_at=1, body="", inputs=inputs, outputs=outputs)
        )

        page = await store.inputs(ADA, "a", limit=2, order=order, after=after)  # type: ignore[arg-type]

        assert page == (bodies, has_more)
        with pytest.raises(InvalidRequest, match="not in this list"):
            await store.inputs(ADA, "a", limit=2, order="asc", after="o")


async def test_what_is_not_used_for_30_days_goes(tmp_path: Path) -> None:
    now = 1000.0
    async with open_responses(tmp_path, clock=lambda: now) as store:
        await store.add(ADA, response("a"))

        assert await store.expire(int(now) + RETENTION_S - 1) == 0
        assert await store.expire(int(now) + RETENTION_S) == 1
        assert await ids_left(store, "a") == []
        assert await store.items(ADA, ["in a"]) == {}


async def test_going_on_from_a_response_is_use_of_all_before_it(tmp_path: Path) -> None:
    now = 1000.0
    async with open_responses(tmp_path, clock=lambda: now) as store:
        await store.add(ADA, response("a"))
        await store.add(ADA, response("b", "a"))
        await store.add(ADA, response("side", "a"))
        now += RETENTION_S - 1
        await store.add(ADA, response("c", "b"))

        assert await store.expire(1000 + RETENTION_S) == 1
        assert await ids_left(store, "a", "b", "side", "c") == ["a", "b", "c"]


async def test_the_longest_unused_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_store, "_SLICE", 2)
    async with open_responses(tmp_path, clock=lambda: 1000.0, max_responses=2) as store:
        for name in "abcdefg":
            await store.add(ADA, response(name))

        assert await store.expire(1000) == 5
        assert await ids_left(store, *"abcdefg") == ["f", "g"]


async def test_nobodys_many_drive_out_anothers_few(tmp_path: Path) -> None:
    async with open_responses(tmp_path, clock=lambda: 1000.0, max_responses=4) as store:
        await store.add(ADA, response("a"))
        for name in "bcdefg":
            await store.add(BOB, response(name))

        assert await store.expire(1000) == 3
        assert await ids_left(store, "a") == ["a"]
        assert await store.get(BOB, "e")
        with pytest.raises(ObjectNotFound):
            await store.get(BOB, "d")


async def test_who_takes_most_room_makes_room(tmp_path: Path) -> None:
    async with open_responses(tmp_path, clock=lambda: 1000.0, max_bytes=400) as store:
        for name in "abc":
            await store.add(ADA, response(name))
        await store.add(BOB, response("d", text="x" * 200))
        await store.add(BOB, response("e", text="x" * 200))

        assert await store.expire(1000) == 1
        assert await ids_left(store, *"abc") == ["a", "b", "c"]
        assert await store.get(BOB, "e")


async def test_the_longest_unused_go_when_they_are_too_large(tmp_path: Path) -> None:
    async with open_responses(tmp_path, clock=lambda: 1000.0, max_bytes=250) as store:
        for name in "abc":
            await store.add(ADA, response(name, text="x" * 100))

        assert await store.expire(1000) == 1
        assert await ids_left(store, *"abc") == ["b", "c"]


async def test_a_conversation_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_responses(tmp_path) as store:
        await store.add(ADA, response("a"))
        await store.add(ADA, response("b", "a"))
        monkeypatch.setattr(response_store, "MAX_CHAIN", 1)
        with pytest.raises(InvalidRequest, match="more than 1 responses"):
            await store.conversation(ADA, "b")
        monkeypatch.setattr(response_store, "MAX_CHAIN", 2)
        assert len(await store.conversation(ADA, "b")) == 4

        monkeypatch.setattr(response_store, "MAX_CHAIN_ITEMS", 3)
        with pytest.raises(InvalidRequest, match="3 items"):
            await store.conversation(ADA, "b")
        monkeypatch.setattr(response_store, "MAX_CHAIN_ITEMS", 4)

        monkeypatch.setattr(response_store, "MAX_CHAIN_BYTES", 9)
        with pytest.raises(InvalidRequest, match="begin another one"):
            await store.conversation(ADA, "b")
