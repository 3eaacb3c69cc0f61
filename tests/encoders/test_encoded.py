import numpy as np

from server.encoders.encoded import assemble, unit_rows
from server.encoders.encoder import EncodedItem, Rows

WHOLE, CUT = EncodedItem([1, 2], [0, 0]), EncodedItem([1, 2, 3], [0, 0, 0], is_truncated=True)
FIRST, NEXT = EncodedItem([1, 2, 3], [0, 0, 0]), EncodedItem([4], [0], is_continuation=True)


def row(*numbers: float) -> Rows:
    return np.array(numbers, dtype=np.float32)


def test_rows_and_counts_are_those_of_the_inputs() -> None:
    encoded = assemble([WHOLE, CUT], [row(1, 2), row(3, 4)], [False, True])

    assert encoded.rows.tolist() == [[1, 2], [3, 4]]
    assert (encoded.num_prompt_tokens, encoded.num_truncated, encoded.num_cached) == (5, 1, 1)


def test_windows_are_averaged_by_their_tokens() -> None:
    encoded = assemble([WHOLE, FIRST, NEXT, WHOLE], [row(9, 9), row(4, 0), row(0, 8), row(7, 7)], [False] * 4)

    assert encoded.rows.tolist() == [[9, 9], [3, 2], [7, 7]]
    assert (encoded.num_prompt_tokens, encoded.num_truncated) == (8, 0)


def test_an_input_is_cached_when_all_its_windows_are() -> None:
    rows = [row(1), row(2), row(3)]

    assert assemble([FIRST, NEXT, WHOLE], rows, [True, False, True]).num_cached == 1
    assert assemble([FIRST, NEXT, WHOLE], rows, [True, True, False]).num_cached == 1


def test_scores_that_are_missing_are_nan() -> None:
    encoded = assemble([WHOLE, WHOLE], [None, np.float32(2)], [False, False])  # type: ignore[list-item]  # a scalar row

    np.testing.assert_array_equal(encoded.rows, np.array([np.nan, 2], dtype=np.float32))


def test_what_was_not_computed_in_time_counts_for_nothing() -> None:
    """Though it was to share another one's row, and was cut."""
    one = np.float32(2)

    encoded = assemble([WHOLE, CUT, WHOLE, CUT], [one, None, one, None], [False, True, True, False])  # type: ignore[list-item]  # scalar rows

    assert (encoded.num_prompt_tokens, encoded.num_truncated) == (4, 0)
    assert (encoded.num_cached, encoded.num_cached_tokens) == (1, 2)


def test_unit_rows_have_norm_1_or_are_zero() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32))

    np.testing.assert_allclose(rows, np.array([[0.6, 0.8], [0, 0]]), rtol=1e-6)
