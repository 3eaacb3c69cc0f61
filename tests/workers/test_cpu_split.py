"""Chat against bulk: what the encoders are told, and when."""

from __future__ import annotations

import pytest

from server.workers import cpu_split
from server.workers.cpu_split import CpuSplit
from tests.fakes.scripted import until_true


@pytest.fixture
def told() -> list[float]:
    return []


@pytest.fixture
def split(told: list[float], monkeypatch: pytest.MonkeyPatch) -> CpuSplit:
    monkeypatch.setattr(cpu_split, "LINGER_S", 0.0)
    made = CpuSplit(0.25)
    made.listen(told.append)
    return made


async def test_bulk_work_yields_while_somebody_chats(split: CpuSplit, told: list[float]) -> None:
    assert split.share == 1

    split.chat_begins()
    assert split.share == 0.25
    split.chat_ends()

    await until_true(lambda: told == [0.25, 1.0])


async def test_the_last_of_several_chat_models_ends_it(split: CpuSplit, told: list[float]) -> None:
    split.chat_begins()
    split.chat_begins()
    split.chat_ends()
    assert told == [0.25]

    split.chat_ends()

    await until_true(lambda: told == [0.25, 1.0])


async def test_a_client_that_asks_again_at_once_is_one_chat(split: CpuSplit, told: list[float]) -> None:
    split.chat_begins()
    split.chat_ends()
    split.chat_begins()

    assert told == [0.25]
    assert split.share == 0.25
