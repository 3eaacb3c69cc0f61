from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.loadgen.answer import Answer
from server.loadgen.exchange import Reply
from server.loadgen.figures import Window, chat_figures, reply_figures

TEN_S = Window(0.0, 10.0, 10.0)


def answer(*chunk_s: float, num_tokens: int = 0, due_s: float = 0.0, error: str = "") -> Answer:
    return Answer({}, due_s, chunk_s=list(chunk_s), done_s=chunk_s[-1], num_tokens=num_tokens, error=error)


def reply(due_s: float, done_s: float, *, num_tokens: int = 0) -> Reply:
    return Reply(8, due_s, done_s, num_tokens=num_tokens)


def test_tokens_behind_the_window_do_not_count() -> None:
    figures = chat_figures([answer(8, 9, 11, 12, num_tokens=40)], TEN_S)

    assert figures["tokens_per_s"] == 2.0


def test_an_answer_that_goes_on_behind_the_window_counts_with_its_share() -> None:
    figures = chat_figures([answer(1, 5, due_s=0.0), answer(9, 20, due_s=5.0)], TEN_S)

    assert figures["requests_per_s"] == pytest.approx((1 + 5 / 15) / 10)


def test_without_counts_a_chunk_is_a_token() -> None:
    assert chat_figures([answer(1, 2, 3)], TEN_S)["tokens_per_s"] == 0.3


def test_failed_answers_are_no_throughput() -> None:
    figures = chat_figures([answer(1, 2, num_tokens=10), answer(1, 2, num_tokens=10, error="lost")], TEN_S)

    assert (figures["tokens_per_s"], figures["completion_rate"]) == (1.0, 0.5)


def test_an_error_alone_is_the_only_figure_of_its_kind() -> None:
    figures = chat_figures([answer(1, error="lost")], TEN_S)

    assert figures == {"completion_rate": 0, "tokens_per_s": 0, "requests_per_s": 0}


def test_items_and_their_tokens_count_alike() -> None:
    figures = reply_figures([reply(0, 5, num_tokens=80), reply(5, 15, num_tokens=80)], TEN_S)

    assert (figures["items_per_s"], figures["input_tokens_per_s"]) == (8 * 1.5 / 10, 80 * 1.5 / 10)
    assert figures["mean_item_tokens"] == 10


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 50)), min_size=1), st.floats(1, 99))
def test_two_windows_together_see_what_one_sees(spans: list[tuple[float, float]], middle_s: float) -> None:
    replies = [reply(due_s, due_s + took_s) for due_s, took_s in spans]

    def seen(begin_s: float, end_s: float) -> float:
        return reply_figures(replies, Window(begin_s, end_s, 1.0))["items_per_s"]

    assert seen(0, middle_s) + seen(middle_s, 1000) == pytest.approx(seen(0, 1000))
