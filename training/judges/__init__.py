"""Judges: who says which of two answers is better, and how their words become one proposal.

The rule: a judge abstains when it cannot tell, and every opinion is kept with its source. A person decides afterwards.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Proposal:
    """What is proposed to the reviewer, with the judge it comes from; an empty choice: every judge abstained."""

    choice: str = ABSTAIN
    score_a: float | None = None
    score_b: float | None = None
    judge: str = ""


def settle(opinions: Iterable[Opinion]) -> Proposal:
    """The proposal of the highest ranked judge that did not abstain; a judge whose two orders differ says tie."""
    opinions = list(opinions)
    for source in RANK:
        said = [opinion for opinion in opinions if opinion.source == source]
        if said and all(opinion.choice for opinion in said):
            choices = {opinion.choice for opinion in said}
            choice = choices.pop() if len(choices) == 1 else Choice.TIE
            return Proposal(choice, _mean(o.score_a for o in said), _mean(o.score_b for o in said), said[0].judge)
    return Proposal()


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return round(sum(known) / len(known), 2) if known else None
