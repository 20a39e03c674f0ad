"""A model and a judge whose truth is known: each answer has a hidden quality, which the judge sees through noise.

u ~ N(0, 1) for each answer; a pair: the first wins with probability logistic((u1 - u2) / 0.7 +
0.4); alone: round(3 + u + N(0, 0.7)) in 1 to 5; a list: by u + N(0, 0.8) + 0.3 for each place further ahead.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re

from training.asking import ANSWER, Ask, Reply

SCORES = {"correct": 4, "helpful": 3, "language": 5}


class Planted:
    """An `Asker`. `asked` keeps what was asked; an answer's text ends in its quality."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.asked: list[Ask] = []

    async def __call__(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        dice = random.Random(hashlib.sha256(f"{self.seed} {ask.key}".encode()).digest())
        text = f"Yanıt: {dice.gauss(0, 1):.6f}" if ask.purpose == ANSWER else json.dumps(self.judge(ask, dice))
        return Reply(text, model=ask.model, cost_nano=1, call=ask.key[:8])

    def judge(self, ask: Ask, dice: random.Random) -> dict[str, object]:
        question = json.loads(ask.messages[-1]["content"])
        if "answers" in question:
            answers = question["answers"]
            seen = {
                label: truth(text) + dice.gauss(0, 0.8) + 0.3 * (len(answers) - place)
                for place, (label, text) in enumerate(answers.items())
            }
            ranking = sorted(seen, key=lambda label: -seen[label])
            return {"ranking": ranking, "scores": dict.fromkeys(answers, SCORES), "reason": "r"}
        if "answer" in question:
            score = round(3 + truth(question["answer"]) + dice.gauss(0, 0.7))
            return {"score": min(5, max(1, score)), "reason": "r"}
        lead = (truth(question["first"]) - truth(question["second"])) / 0.7 + 0.4
        winner = "first" if dice.random() < 1 / (1 + math.exp(-lead)) else "second"
        return {"first": SCORES, "second": SCORES, "winner": winner, "reason": "r"}


def truth(text: str) -> float:
    """The hidden quality of an answer."""
    found = re.search(r"-?\d+\.\d+", text)
    assert found, text
    return float(found[0])
