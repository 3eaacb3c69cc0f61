"""Who comes first when not everybody can: the order in which waiting sequences are admitted and prompts computed."""

from __future__ import annotations

from server.engine.sequence import Sequence


def urgency(sequence: Sequence, now: float, *, s_per_token: float) -> tuple[int, float]:
    """Sort key, the most urgent first: by priority, then by seconds.

    The seconds are those of compute that the prompt still needs, less those it has waited, or those left until its
    deadline if these are fewer. So the shortest goes first, which makes the mean wait shortest, but nobody waits for
    more of others' work than its own amounts to before it is the first of its priority.
    """
    aged = sequence.num_remaining * s_per_token - (now - sequence.arrived_at)
    return sequence.priority, min(aged, sequence.deadline_at - now)
