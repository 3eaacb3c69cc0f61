"""Who comes first when not everybody can: the order in which waiting sequences are admitted and prompts computed."""

from __future__ import annotations

from server.engine.sequence import Sequence

HURRY_S = 10.0
"""Slack below which a deadline hurries a sequence, and how much waiting that is worth at most: nobody shall pass all
others for ever by allowing little time."""


def urgency(sequence: Sequence, now: float, *, s_per_token: float) -> tuple[int, float]:
    """Sort key, the most urgent first: by priority, then by seconds.

    The seconds are those of compute that the prompt still needs, less those it has waited. So the shortest goes first,
    which makes the mean wait shortest, but nobody waits for more of others' work than its own amounts to before it is
    the first of its priority. A deadline that can just be met counts as up to `HURRY_S` of waiting; one that cannot be
    met any more counts nothing.
    """
    needed_s = sequence.num_remaining * s_per_token
    slack_s = sequence.deadline_at - now - needed_s
    hurry_s = HURRY_S - slack_s if 0 <= slack_s < HURRY_S else 0.0
    return sequence.priority, needed_s - (now - sequence.arrived_at) - hurry_s
