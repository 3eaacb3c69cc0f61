from __future__ import annotations

import asyncio

import pytest

from server.errors import HearthError, ModelUnavailable, Overloaded
from server.rag import contexts
from server.rag.contexts import ContextFailed, ContextModel, ContextWriter, DocumentContexts
from server.rag.documents import Block, ParsedDocument, Span
from server.types import ChatPrompt
from tests.fakes.models import FakeChatModel, Step, saying

TEXT = "Gardens\n\nRoses\n\nPrune them in March. Feed them in May.\n\nTulips\n\nLift the bulbs."
DOCUMENT = ParsedDocument(
    TEXT,
    (
        Block("heading", 0, 7, level=1),
        Block("heading", 9, 14, level=2),
        Block("paragraph", 16, 54),
        Block("heading", 56, 62, level=2),
        Block("paragraph", 64, 79),
    ),
    "text/plain",
    title="The garden book",
)
SPAN = Span(16, 54, heading="Gardens > Roses")


def opened(
    model: FakeChatModel, *, document: ParsedDocument = DOCUMENT, model_id: str = "talker", num_at_a_time: int = 2
) -> DocumentContexts:
    return ContextWriter(lambda: ContextModel(model_id, model), num_at_a_time=num_at_a_time).open("ada", document)


async def written(*pieces: str, reason: str = "stop") -> str:
    return await opened(FakeChatModel(steps=saying(*pieces, reason=reason))).write(SPAN)


async def test_the_model_sees_document_outline_and_chunk() -> None:
    model = FakeChatModel(steps=saying("It tells how to care for roses."))

    assert await opened(model).write(SPAN) == "It tells how to care for roses."

    [request] = model.requests
    assert isinstance(request.prompt, ChatPrompt)
    _, message = request.prompt.messages
    parts = ("The garden book", "Gardens; Roses; Tulips", "Lift the bulbs.", "Section: Gardens > Roses\n")
    assert all(part in message.content for part in parts)
    assert message.content.count("Prune them in March.") == 2


async def test_it_is_asked_behind_everybody_else_and_for_the_tenant() -> None:
    model = FakeChatModel(steps=saying("Roses."))

    await opened(model).write(SPAN)

    [request] = model.requests
    assert request.urgency.priority > 1000, "which is the last that clients can ask for"
    assert (request.tenant, request.sampling.temperature) == ("ada", 0.0)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("How to  prune\nroses.", "How to prune roses."),
        ('"How to prune roses."', "How to prune roses."),
        ("Context: How to prune roses.", "How to prune roses."),
        ("<think>Hm.</think>How to prune roses.", "How to prune roses."),
        ("", ""),
        ("I cannot do that, Dave", ""),
        ("Roses. And more. Roses. And more.", "Roses. And more."),
        ("About roses. " + "And so on " * 50, "About roses."),
        ("Roses " * 80, ""),
    ],
    ids=["white space", "quoted", "labelled", "thoughts", "nothing", "nonsense", "again", "too much", "endless"],
)
async def test_an_answer_is_looked_at_before_it_is_used(said: str, kept: str) -> None:
    found = await written(said)

    assert found == kept
    assert len(found) <= contexts.MAX_CHARS


async def test_of_an_answer_that_was_cut_whole_sentences_stay() -> None:
    assert await written("It is about roses. They are pru", reason="length") == "It is about roses."
    assert await written("It is about ros", reason="length") == ""


async def test_a_key_changes_with_chunk_headings_title_and_model_and_nothing_else() -> None:
    model = FakeChatModel()
    longer = ParsedDocument(TEXT + "\n\nOne word more.", DOCUMENT.blocks, "text/plain", title=DOCUMENT.title)
    renamed = ParsedDocument(TEXT, DOCUMENT.blocks, "text/plain", title="Another book")
    key = opened(model).key(SPAN)

    assert opened(model, document=longer).key(SPAN) == key
    others = [
        opened(model).key(Span(16, 53, heading=SPAN.heading)),
        opened(model).key(Span(16, 54, heading="Gardens")),
        opened(model, document=renamed).key(SPAN),
        opened(model, model_id="other").key(SPAN),
    ]
    assert len({key, *others}) == 5


async def test_only_so_many_are_written_at_a_time() -> None:
    model = FakeChatModel(steps=(asyncio.Event(),))
    document = opened(model, num_at_a_time=2)
    writing = [asyncio.create_task(document.write(SPAN)) for _ in range(5)]
    await model.begun.wait()
    await asyncio.sleep(0)

    assert len(model.requests) == 2
    for task in writing:
        task.cancel()
    await asyncio.wait(writing)


def test_without_a_chat_model_nothing_is_written() -> None:
    with pytest.raises(ContextFailed, match=r"rag\.chat_model"):
        ContextWriter(lambda: None).open("ada", DOCUMENT)


async def test_a_model_that_cannot_answer_is_told() -> None:
    with pytest.raises(ContextFailed, match="it has failed"):
        await opened(FakeChatModel(steps=(ModelUnavailable("it has failed"),))).write(SPAN)


async def test_a_model_that_never_has_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "TIMEOUT_S", 0.01)

    with pytest.raises(ContextFailed, match="had no time"):
        await opened(FakeChatModel(steps=(asyncio.Event(),))).write(SPAN)


async def test_an_overloaded_model_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_OVERLOAD_WAIT_S", 0)
    errors: list[HearthError] = [Overloaded("full"), Overloaded("full")]

    class Busy(FakeChatModel):
        @property
        def steps(self) -> tuple[Step, ...]:
            return (errors.pop(),) if errors else saying("About roses.")

        @steps.setter
        def steps(self, _value: object) -> None: ...

    assert await opened(Busy()).write(SPAN) == "About roses."
