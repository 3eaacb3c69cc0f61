import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.encoders.bulk_pace import LIVELY_S, MAX_WAIT_S, BulkPace


def paced(share: float) -> BulkPace:
    pace = BulkPace()
    pace.set_share(share)
    return pace


def test_without_neighbours_there_is_no_rest() -> None:
    pace = BulkPace()

    pace.record(3.0, num_tokens=100, now=10.0)

    assert pace.rest_s(10.0) == 0


@given(share=st.floats(0.01, 1), batches_s=st.lists(st.floats(0.001, 10), min_size=1, max_size=20))
def test_batches_that_begin_as_soon_as_they_may_take_their_share(share: float, batches_s: list[float]) -> None:
    pace, now = paced(share), 0.0

    for seconds in batches_s:
        now += seconds
        pace.record(seconds, num_tokens=100, now=now)
        now += pace.rest_s(now)

    assert sum(batches_s) / now == pytest.approx(share)


def test_a_rest_ends_when_the_neighbour_has_gone() -> None:
    pace = paced(0.5)
    pace.record(3.0, num_tokens=100, now=10.0)
    assert pace.rest_s(11.0) == 2

    pace.set_share(1.0)

    assert pace.rest_s(11.0) == 0


def test_a_batch_is_as_large_as_it_may_be_where_nobody_waits() -> None:
    pace = BulkPace()

    pace.record(1.0, num_tokens=1000, now=10.0)

    assert pace.max_tokens(10.0) is None


def test_where_somebody_waits_a_batch_ends_soon() -> None:
    pace = BulkPace()
    pace.record(1.0, num_tokens=1000, now=10.0)

    pace.record_interactive(10.0)

    assert pace.max_tokens(10.0) == pytest.approx(MAX_WAIT_S * 1000)


def test_who_has_not_asked_for_long_does_not_wait_any_more() -> None:
    pace = BulkPace()
    pace.record(1.0, num_tokens=1000, now=10.0)
    pace.record_interactive(10.0)

    assert pace.max_tokens(10.0 + LIVELY_S) is None


def test_what_a_token_takes_is_learned_anew() -> None:
    pace = BulkPace()
    pace.record_interactive(10.0)

    for seconds in [1.0] + [2.0] * 50:
        pace.record(seconds, num_tokens=1000, now=10.0)

    assert pace.max_tokens(10.0) == pytest.approx(MAX_WAIT_S * 500, abs=1)
