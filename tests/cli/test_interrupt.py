"""The first Ctrl-C asks, the second one ends."""

from __future__ import annotations

import signal

import pytest

from server.cli.interrupt import Interrupt


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(signal_: signal.Signals) -> None:
    with Interrupt() as interrupt:
        assert not interrupt.is_asked
        signal.raise_signal(signal_)
        assert interrupt.is_asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal_)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with Interrupt():
        pass

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
