"""Which tokens lie in the KV cache, and who holds them: a radix tree over token ids.

A node is a run of cells; the path from the root to a node spells the tokens in those cells. A holder is a sequence id:
that of a running sequence, or of a finished one that is kept (idle) because its tokens may come again. A cell is held
by every holder whose path runs through its node, and is free again when the last of them lets go.

    root ── "system prompt" ─┬─ "question A, answer A"           held by 0 (running)
             held by 0 1 2   └─ "question B" ─┬─ "answer B"      held by 1 (running)
                              held by 1 2     └─ "answer C"      held by 2 (idle)

Each tenant has a tree of its own: nobody can tell by the time an answer takes what another tenant has asked.
Knows no backend: it says what may be shared and what is free; `kv_cache.py` does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from server.types import TokenIds


@dataclass(eq=False, slots=True)
class _Node:
    """A run of cells.

    Attributes:
        holders: Sequence ids that hold these cells; never empty, except in the root.
        num_running: How many of them belong to running sequences.
        children: By first token. Two may begin alike: computed at the same time by sequences that did not wait.
    """

    token_ids: TokenIds
    parent: _Node | None
    holders: set[int] = field(default_factory=set)
    num_running: int = 0
    children: dict[int, list[_Node]] = field(default_factory=dict)

    def path(self) -> Iterator[_Node]:
        """This node and its ancestors, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True)
class Match:
    """The longest beginning of some tokens that lies in the cache.

    Attributes:
        num_tokens: Its length.
        num_idle_cells: Those of its cells that no running sequence holds.
        holders: The sequence ids that hold all of it; none if it is empty.
    """

    num_tokens: int
    num_idle_cells: int
    holders: Set[int]
    _node: _Node
    _num_in_node: int


class PrefixCache:
    """The tree, with its counts kept up to date.

    Attributes:
        num_cells: Cells in use: the sum of all nodes.
        num_running_cells: Those that running sequences hold; the rest can be evicted.
    """

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}  # by tenant
        self._tips: dict[int, _Node] = {}  # where each holder's path ends
        self.num_cells = 0
        self.num_running_cells = 0

    def match(self, token_ids: Sequence[int], *, tenant: str) -> Match:
        """Find the longest beginning that this tenant has in the cache; part of a node counts."""
        root = self._roots.setdefault(tenant, _Node([], None))
        node, in_node, num_matched = root, 0, 0
        complete = [(root, 0)]  # nodes that match to their end, at first one; more where siblings begin alike
        while complete:
            parent, start = complete.pop()
            for child in parent.children.get(token_ids[start], ()) if start < len(token_ids) else ():
                length = _common_length(child.token_ids, token_ids, start)
                if start + length > num_matched:
                    node, in_node, num_matched = child, length, start + length
                if length == len(child.token_ids):
                    complete.append((child, start + length))
        missing = len(node.token_ids) - in_node
        idle = sum(len(each.token_ids) for each in node.path() if not each.num_running)
        num_idle = idle - (missing if idle and not node.num_running else 0)
        return Match(num_matched, num_idle, node.holders, node, in_node)

    def num_tokens_of(self, holder: int) -> int:
        """How many cells it holds."""
        return sum(len(node.token_ids) for node in self._tips[holder].path())

    def token_ids_of(self, holder: int) -> TokenIds:
        """The tokens whose cells it holds, in order."""
        path = reversed(list(self._tips[holder].path()))
        return [token_id for node in path for token_id in node.token_ids]

    def ending_at(self, match: Match) -> list[int]:
        """The holders whose path ends exactly where the match ends: what follows continues them."""
        node = match._node
        if match._num_in_node < len(node.token_ids):
            return []
        return [holder for holder in node.holders if self._tips[holder] is node]

    def open(self, holder: int, match: Match) -> None:
        """Begin a running sequence that shares what was matched. Nothing may have changed since the match."""
        node = self._tips[holder] = self._end_of(match)
        for each in node.path():
            each.holders.add(holder)
            self._count_running(each, +1)

    def reopen(self, holder: int, match: Match) -> None:
        """The same for an idle holder that holds the match itself: what lies behind it is let go."""
        node, old_tip = self._end_of(match), self._tips[holder]
        kept = list(node.path())
        for each in [each for each in old_tip.path() if each not in kept]:
            self._let_go(each, holder)
        self._tips[holder] = node
        for each in kept:
            self._count_running(each, +1)

    def extend(self, holder: int, token_ids: Sequence[int]) -> None:
        """Record that a running sequence's next cells have been computed."""
        tip = self._tips[holder]
        if tip.parent is None or tip.children or len(tip.holders) > 1:
            child = _Node([], tip, {holder}, num_running=1)
            tip.children.setdefault(token_ids[0], []).append(child)
            tip = self._tips[holder] = child
        tip.token_ids.extend(token_ids)
        self.num_cells += len(token_ids)
        self.num_running_cells += len(token_ids)

    def make_idle(self, holder: int) -> None:
        """The sequence has finished; its cells stay for others until `release`."""
        for node in self._tips[holder].path():
            self._count_running(node, -1)

    def release(self, holder: int) -> None:
        """Let go of all cells of an idle holder; those that nobody else holds are free."""
        for node in list(self._tips.pop(holder).path()):
            self._let_go(node, holder)

    def num_own_cells(self, holder: int) -> int:
        """Cells of a running holder that no other running one holds."""
        return sum(len(node.token_ids) for node in self._tips[holder].path() if node.num_running == 1)

    def adds_nothing(self, holder: int) -> bool:
        """Whether others hold all of its cells."""
        tip = self._tips[holder]
        return tip.parent is None or len(tip.holders) > 1

    def _end_of(self, match: Match) -> _Node:
        """The node that ends where the match ends."""
        if match._num_in_node < len(match._node.token_ids):
            return self._split(match._node, match._num_in_node)
        return match._node

    def _split(self, node: _Node, length: int) -> _Node:
        """Cut a node in two; return the upper part. The lower one keeps its identity: tips stay right."""
        assert 0 < length < len(node.token_ids)
        assert node.parent is not None
        siblings = node.parent.children[node.token_ids[0]]
        upper = _Node(node.token_ids[:length], node.parent, set(node.holders), node.num_running)
        siblings[siblings.index(node)] = upper
        node.token_ids = node.token_ids[length:]
        node.parent = upper
        upper.children[node.token_ids[0]] = [node]
        return upper

    def _let_go(self, node: _Node, holder: int) -> None:
        node.holders.remove(holder)
        if not node.holders:
            self._remove(node)

    def _remove(self, node: _Node) -> None:
        assert not node.children, "a child's holders hold its parent too"
        assert node.parent is not None
        siblings = node.parent.children[node.token_ids[0]]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[node.token_ids[0]]
        self.num_cells -= len(node.token_ids)

    def _count_running(self, node: _Node, change: int) -> None:
        was_running = node.num_running > 0
        node.num_running += change
        if was_running != (node.num_running > 0):
            self.num_running_cells += change * len(node.token_ids)

    def check_integrity(self, *, running: Set[int] | None = None) -> None:
        """Assert that all counts are true, and who runs where that is known: slow, for tests and idle moments."""
        num_cells = num_running_cells = 0
        roots = self._roots.values()
        nodes = [child for root in roots for children in root.children.values() for child in children]
        while nodes:
            node = nodes.pop()
            assert node.holders
            assert node.parent is not None
            assert node.parent in roots or node.holders <= node.parent.holders
            assert node.num_running <= len(node.holders)
            assert running is None or node.num_running == len(node.holders & running), "cells leaked"
            num_cells += len(node.token_ids)
            num_running_cells += len(node.token_ids) if node.num_running else 0
            nodes += [child for children in node.children.values() for child in children]
        assert num_cells == self.num_cells
        assert num_running_cells == self.num_running_cells


def _common_length(run: TokenIds, token_ids: Sequence[int], start: int) -> int:
    """How many tokens of `run` stand at `token_ids[start:]`: by halves, so that lists are compared and not tokens."""
    equal, most = 0, min(len(run), len(token_ids) - start)
    while equal < most:
        middle = (equal + most + 1) // 2
        if run[equal:middle] == token_ids[start + equal : start + middle]:
            equal = middle
        else:
            most = middle - 1
    return equal
