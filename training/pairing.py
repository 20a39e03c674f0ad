"""Which candidates of one prompt meet, and on which side. Pure.

All pairs would be six for four answers, most of them dull. Chosen are: best against second (hard), best against worst
(clear), second against third (the middle), where written scores tell; neighbours where nothing tells; and one
pair across sources. The side comes from a hash, so that A is not always the better one and a second run agrees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """One candidate: its text, its source, and its written score where there is one."""

    text: str
    source: str
    score: float | None = None


def choose(prompt: str, contenders: Sequence[Contender]) -> list[tuple[int, int]]:
    """Index pairs (a, b) into `contenders`: at most four for four written answers and others beside them."""
    scored = [i for i, one in enumerate(contenders) if one.score is not None]
    ranked = sorted(scored, key=lambda i: (-(contenders[i].score or 0), i))
    chosen = _of_ranked(ranked)
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(contenders):
        if one.score is None:
            groups.setdefault(one.source, []).append(i)
    for group in groups.values():
        chosen += _of_equals(group)
    heads = [group[0] for group in groups.values()]
    if ranked and heads:
        chosen.append((heads[0], ranked[min(1, len(ranked) - 1)]))  # against a plain written one, not the best
    elif len(heads) > 1:
        chosen.append((heads[0], heads[1]))
    distinct = dict.fromkeys(pair for pair in chosen if contenders[pair[0]].text != contenders[pair[1]].text)
    texts = [one.text for one in contenders]
    return [sided(prompt, texts, *pair) for pair in distinct]


def _of_ranked(ranked: list[int]) -> list[tuple[int, int]]:
    pairs = []
    if len(ranked) >= 2:
        pairs.append((ranked[0], ranked[1]))
    if len(ranked) >= 3:
        pairs.append((ranked[0], ranked[-1]))
    if len(ranked) >= 4:
        pairs.append((ranked[1], ranked[2]))
    return pairs


def _of_equals(group: list[int]) -> list[tuple[int, int]]:
    pairs = list(zip(group[::2], group[1::2], strict=False))
    return [*pairs, (group[0], group[-1])] if len(group) >= 3 else pairs


def sided(prompt: str, texts: Sequence[str], a: int, b: int) -> tuple[int, int]:
    """Two of `texts` with the one first that their hash says."""
    low, high = min(a, b), max(a, b)
    both = "\x00".join([prompt, texts[low], texts[high]])
    return (low, high) if hashlib.sha256(both.encode()).digest()[0] & 1 else (high, low)
