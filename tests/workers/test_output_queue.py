"""What the engine's thread says reaches the text thread in order, soon enough, and not too often."""

from __future__ import annotations

import threading

from server.engine.engine import TokenOutput
from server.types import Finished, Usage
from server.workers.output_queue import OutputQueue

FOR_EVER_S = 3600.0
END = Finished("stop", Usage(prompt_tokens=1))


def said(request_id: str, *token_ids: int, ending: Finished | None = None) -> TokenOutput:
    return (request_id, list(token_ids), ending)


def test_the_first_words_do_not_wait() -> None:
    outputs = OutputQueue(FOR_EVER_S)

    outputs.put([said("a", 1)], is_urgent=False)

    assert outputs.take() == [said("a", 1)]


def test_what_waits_goes_with_what_is_urgent() -> None:
    outputs = OutputQueue(FOR_EVER_S)
    outputs.put([said("a", 1)], is_urgent=False)
    outputs.take()

    outputs.put([said("a", 2), said("b", 7)], is_urgent=False)
    outputs.put([said("b", 8), said("a", 3, ending=END)], is_urgent=True)

    assert outputs.take() == [said("a", 2, 3, ending=END), said("b", 7, 8)]


def test_what_is_not_urgent_waits_for_its_time() -> None:
    outputs = OutputQueue(FOR_EVER_S)
    outputs.put([said("a", 1)], is_urgent=False)
    outputs.take()
    taken: list[list[TokenOutput] | None] = []
    taker = threading.Thread(target=lambda: taken.append(outputs.take()))
    taker.start()

    outputs.put([said("a", 2)], is_urgent=False)
    taker.join(0.1)
    assert taken == []

    outputs.close()
    taker.join()
    assert taken == [[said("a", 2)]]


def test_its_time_comes_by_itself() -> None:
    outputs = OutputQueue(0.01)
    outputs.put([said("a", 1)], is_urgent=False)
    outputs.take()

    outputs.put([said("a", 2)], is_urgent=False)

    assert outputs.take() == [said("a", 2)]


def test_a_taker_that_has_waited_long_is_woken_by_whatever_comes() -> None:
    outputs = OutputQueue(0.0)
    taken: list[list[TokenOutput] | None] = []
    taker = threading.Thread(target=lambda: taken.append(outputs.take()))
    taker.start()

    outputs.put([said("a", 1)], is_urgent=False)

    taker.join(60)
    assert taken == [[said("a", 1)]]


def test_a_request_that_takes_the_name_of_one_that_has_ended_is_another() -> None:
    outputs = OutputQueue(FOR_EVER_S)
    outputs.put([said("a", 1, ending=END)], is_urgent=True)
    outputs.put([said("a", 2)], is_urgent=True)
    outputs.put([said("a", 3)], is_urgent=False)

    assert outputs.take() == [said("a", 1, ending=END), said("a", 2, 3)]


def test_a_closed_queue_gives_what_is_left_and_then_nothing() -> None:
    outputs = OutputQueue(FOR_EVER_S)
    outputs.put([said("a", 1)], is_urgent=False)
    outputs.close()

    assert outputs.take() == [said("a", 1)]
    assert outputs.take() is None
