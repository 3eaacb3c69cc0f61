from __future__ import annotations

from server.rag.near_duplicates import NearDuplicates

PAGE = "The server keeps every file in one folder and writes each change to its journal before it answers. " * 4
LONG = " ".join(f"{left}{right}" for left in "abcdefghijk" for right in "klmnopqrst")


def test_the_first_of_its_kind_is_new() -> None:
    known = NearDuplicates()

    assert [known.original_of(text) for text in (PAGE, "Something else.", "", "a b")] == [None] * 4


def test_case_space_and_marks_do_not_make_a_text_new() -> None:
    known = NearDuplicates()
    known.original_of("Something else.")
    known.original_of(PAGE)

    assert known.original_of("  " + PAGE.upper().replace(" ", "\n").replace(".", " !")) == 1


def test_a_word_changed_in_a_long_text_does_not_make_it_new() -> None:
    known = NearDuplicates()
    known.original_of(LONG)

    assert known.original_of(LONG.replace("fk", "other")) == 0


def test_other_numbers_are_another_text() -> None:
    known = NearDuplicates()
    known.original_of(f"{PAGE} In 2023 it was 5 %.")

    assert known.original_of(f"{PAGE} In 2024 it was 5 %.") is None


def test_a_word_that_is_asked_for_makes_another_text() -> None:
    """Contracts are the same but for the name: who asks for Bob's is not helped by Alice's."""
    contracts = [f"{LONG} This contract is with {name}." for name in ("Alice", "Bob", "Carol")]

    def originals(query: str) -> list[int | None]:
        known = NearDuplicates([query])
        return [known.original_of(text) for text in contracts]

    assert originals("What is the contract with BOB?") == [None, None, 0]
    assert originals("contracts") == [None, 0, 0]


def test_a_part_is_no_duplicate() -> None:
    known = NearDuplicates()
    known.original_of(f"{PAGE} {' '.join('abcdefghijklmnopqrstuvwxyz' * 2)}")

    assert known.original_of(PAGE) is None


def test_scripts_without_spaces_are_compared_by_signs() -> None:
    known = NearDuplicates()
    text = "今日はとても良い天気ですから散歩に行きましょう明日は雨が降るでしょう"
    known.original_of(text)

    assert known.original_of(text + "。") == 0
    assert known.original_of("明日は雨が降るでしょう") is None


def test_what_repeats_something_is_not_remembered_but_counted() -> None:
    known = NearDuplicates()

    assert [known.original_of(text) for text in (PAGE, PAGE, "new", PAGE, "new")] == [None, 0, None, 0, 2]
