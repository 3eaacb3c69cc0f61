from server.encoders.encoder import EncodedItem, TokenBudget
from server.encoders.flights import Flights

BUDGET = TokenBudget(100)
ITEM = EncodedItem([1, 2], [0, 0])
OTHER = EncodedItem([1, 3], [0, 0])


def join(flights: Flights[str], owner: str, position: int = 0, item: EncodedItem = ITEM) -> bool:
    return flights.join(owner, position, item.digest(), item, "bulk")


def test_what_several_want_is_queued_once() -> None:
    flights: Flights[str] = Flights()

    joined = [join(flights, "a"), join(flights, "a", 1), join(flights, "b"), join(flights, "b", 1, OTHER)]

    assert joined == [False, True, True, False]
    assert flights.num_queued == 2


def test_a_landed_flight_names_all_who_waited_for_it() -> None:
    flights: Flights[str] = Flights()
    join(flights, "a", 3)
    [flight] = flights.take_batch(BUDGET)
    join(flights, "b", 5)  # while it is being computed

    assert flights.land(flight) == {"a": [3], "b": [5]}
    flights.check_integrity()


def test_one_of_two_may_leave() -> None:
    flights: Flights[str] = Flights()
    join(flights, "a")
    join(flights, "b")

    flights.leave("a")

    [flight] = flights.take_batch(BUDGET)
    assert flights.land(flight) == {"b": [0]}


def test_a_flight_ends_with_the_last_who_leaves() -> None:
    flights: Flights[str] = Flights()
    join(flights, "a")
    join(flights, "b")

    flights.leave("a")
    flights.leave("b")

    flights.check_integrity()


def test_nobody_joins_a_running_flight_that_all_have_left() -> None:
    """Its batch may fail, and then it is not tried again."""
    flights: Flights[str] = Flights()
    join(flights, "a")
    [abandoned] = flights.take_batch(BUDGET)
    flights.leave("a")

    assert not join(flights, "b")
    assert flights.land(abandoned) == {}
    assert flights.num_queued == 1


def test_an_interactive_owner_takes_a_bulk_flight_along() -> None:
    flights: Flights[str] = Flights()
    join(flights, "job", item=EncodedItem([9] * 90, [0] * 90))
    join(flights, "job")

    flights.join("person", 0, ITEM.digest(), ITEM, "interactive")

    assert [flight.encoded for flight in flights.take_batch(BUDGET)] == [ITEM]


def test_items_differ_by_segments_too() -> None:
    assert EncodedItem([1, 2], [0, 1]).digest() != ITEM.digest()
