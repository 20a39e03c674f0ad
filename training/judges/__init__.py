"""Judges: who says which of two answers is better, and how their words become one proposal.

The rule: a judge abstains when it cannot tell, and every opinion is kept with its source. A person decides afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from training.models import Choice, Source

ABSTAIN = ""
RANK = (Source.CLAUDE, Source.WRITTEN, Source.RULES)  # whose word counts first


@dataclass(frozen=True)
class Opinion:
    """What one judge said of one pair in one order. `choice` is a Choice or ABSTAIN; scores run from 0 to 10."""

    source: str
    judge: str
    choice: str
    score_a: float | None = None
    score_b: float | None = None
    swapped: bool = False
    rationale: str = ""
    cost_nano: int = 0
    call: str = ""  # of the run's books, where it was paid for


@dataclass(frozen=True)
class Proposal:
    """What is proposed to the reviewer, with the judge it comes from; an empty choice: every judge abstained."""

    choice: str = ABSTAIN
    score_a: float | None = None
    score_b: float | None = None
    judge: str = ""
    steady: bool = True  # every vote of that judge said the same


def settle(opinions: Iterable[Opinion]) -> Proposal:
    """The proposal of the highest ranked judge that did not abstain: what most of its votes say, else a tie.

    One vote of a judge that votes several times is not enough: it has been shown one order only.
    """
    opinions = list(opinions)
    for source in RANK:
        votes = [opinion for opinion in opinions if opinion.source == source]
        said = [opinion for opinion in votes if opinion.choice]
        if not said or len(said) < min(2, len(votes)):
            continue
        choices = Counter(opinion.choice for opinion in said)
        choice, most = choices.most_common(1)[0]
        choice = choice if 2 * most > len(said) else Choice.TIE
        scores = _mean(o.score_a for o in said), _mean(o.score_b for o in said)
        return Proposal(choice, *scores, said[0].judge, len(choices) == 1)
    return Proposal()


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), 2) if known else None
