"""The planted truth: how good an answer really is, u ~ N(0,1), and judges of known error.

The rule: u follows from the seed and the mark that the answer carries, so whoever has the text and the seed knows it;
a text without a mark has the u of its own words. A judge sees u through noise and prefers what it is shown first:

- pairwise: first wins with probability logistic((u1 - u2) / 0.7 + 0.4);
- single: round(3 + u + N(0, 0.7)), from 1 to 5;
- listwise: ordered by u + N(0, 0.8) + 0.3 for every place further ahead.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from statistics import NormalDist

SCALE, FIRST_BONUS = 0.7, 0.4
SINGLE_NOISE = 0.7
LIST_NOISE, PLACE_BONUS = 0.8, 0.3
MARK = re.compile(r"\bkayıt ([0-9a-f]{16})\b")
_NORMAL = NormalDist()


def mark(seed: int, *asked: str) -> str:
    """The words that an answer to this system prompt and conversation carries."""
    digest = hashlib.sha256("\0".join((str(seed), *asked)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"kayıt {digest[:16]}"


def quality(seed: int, text: str) -> float:
    """u of an answer."""
    found = MARK.search(text)
    digest = hashlib.sha256(f"u\0{seed}\0{found[1] if found else text}".encode("utf-8", "surrogatepass")).digest()
    return _NORMAL.inv_cdf((int.from_bytes(digest[:6], "big") + 0.5) / 2**48)


def first_wins(u1: float, u2: float, die: random.Random) -> bool:
    return die.random() < 1 / (1 + math.exp(-((u1 - u2) / SCALE + FIRST_BONUS)))


def score(u: float, die: random.Random) -> int:
    """From 1 to 5."""
    return min(5, max(1, round(3 + u + die.gauss(0, SINGLE_NOISE))))


def ranking(us: Sequence[float], die: random.Random) -> list[int]:
    """Places of the answers as shown, best first."""
    last = len(us) - 1
    seen = [u + die.gauss(0, LIST_NOISE) + PLACE_BONUS * (last - place) for place, u in enumerate(us)]
    return sorted(range(len(us)), key=lambda place: -seen[place])
