"""The verdict in the sample file, for pairs whose two answers were both written beforehand. It judges nothing else."""

from __future__ import annotations

from training.judges import ABSTAIN, Opinion
from training.models import Choice, Source
from training.samples import FILE, Samples, score_of

CLEAR = 2.0  # points of difference from which one answer is better


def judge(samples: Samples, prompt: str, a: str, b: str) -> Opinion:
    """Compares the written scores of two texts; abstains unless both are samples of this prompt."""
    first, second = score_of(samples, prompt, a), score_of(samples, prompt, b)
    if first is None or second is None:
        return Opinion(Source.WRITTEN, FILE, ABSTAIN)
    difference = first.score - second.score
    choice = Choice.TIE if abs(difference) < CLEAR else Choice.A if difference > 0 else Choice.B
    rationale = f"A: {first.reason} B: {second.reason}"
    return Opinion(Source.WRITTEN, FILE, choice, first.score, second.score, rationale=rationale)
