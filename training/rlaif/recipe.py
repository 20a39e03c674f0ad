"""What is asked for one prompt, and what pairs come of the answers: the one way of both the console and the files.

Every call goes through an `Asker`, so that this module knows neither keys nor money nor a database. The rule: what is
asked next depends on nothing but what came back; a run that starts again therefore asks for the same, and finds stored
what it has paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training import pairing
from training.asking import ANSWER, Ask, Asker, Reply
from training.judges import Opinion, Proposal, panel, settle
from training.judges.panel import Judge
from training.models import Source

LISTWISE, PAIRWISE, ALONE = "listwise", "pairwise", "alone"
STRATEGIES = (LISTWISE, PAIRWISE, ALONE)
MAX_TOKENS = 600  # of an answer, thinking included
# Several answers to one prompt differ by what they are told: current models take no temperature.
PRINCIPLES = (
    "Soruyu doğru, açık ve tam cümlelerle Türkçe yanıtla. En önemli bilgiyi başta ver.",
    "Soruyu Türkçe ve en çok iki cümleyle, gereksiz söz katmadan yanıtla.",
    "Soruyu Türkçe, uygulanabilir adımlarla ve kısa bir gerekçeyle yanıtla.",
    "Soruyu Türkçe, konuyu hiç bilmeyen birine küçük bir örnekle anlatır gibi yanıtla.",
)
Turns = Sequence[Mapping[str, Any]]  # of a conversation: {"role", "content"}, the last one the user's


@dataclass(frozen=True)
class Generator:
    """Who answers how often, by which models (in turn) and with how much effort."""

    provider: str
    source: str
    models: tuple[str, ...]
    count: int
    effort: str = "low"
    max_tokens: int = MAX_TOKENS
    principles: tuple[str, ...] = PRINCIPLES
    seed: int = 0

    def asks(self, turns: Turns) -> list[Ask]:
        return [self._ask(turns, number) for number in range(self.count)]

    def _ask(self, turns: Turns, number: int) -> Ask:
        own = [str(turn["content"]) for turn in turns if turn["role"] == "system"]
        principle = self.principles[number % len(self.principles)]
        model = self.models[number % len(self.models)]
        spoken = [turn for turn in turns if turn["role"] != "system"]
        system = "\n\n".join([*own, principle])
        place = (number, self.seed)
        return Ask(ANSWER, self.provider, model, system, spoken, self.max_tokens, self.effort, place=place)


@dataclass(frozen=True)
class Candidate:
    """One answer with who gave it. `score` is a written one's; `reply` is empty where nothing was sent."""

    text: str
    source: str
    generator: str
    score: float | None = None
    principle: str = ""
    reply: Reply | None = None


@dataclass(frozen=True)
class Pair:
    """Candidates number `a` and `b`, what was said of them, and what is proposed to a person."""

    a: int
    b: int
    opinions: tuple[Opinion, ...]
    proposal: Proposal


@dataclass
class Made:
    """What came of one prompt. `lost` are replies that were paid for and gave no answer: refused, cut short, empty."""

    candidates: list[Candidate] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    lost: list[Reply] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """`at_once` gives the opinions that need nobody: rule checks, written verdicts, of (prompt, a, b)."""

    generators: tuple[Generator, ...]
    judges: tuple[Judge, ...]
    strategy: str = LISTWISE
    at_once: Callable[[str, str, str], list[Opinion]] = lambda prompt, a, b: []

    async def make(self, ask: Asker, prompt: str, turns: Turns, ready: Sequence[Candidate] = ()) -> Made:
        """Answers, pairs and verdicts for one prompt; `ready` are candidates that are there already.

        `prompt` is what the judges read. Raises what `ask` raises.
        """
        made = Made(list(ready))
        asked = [(generator, one) for generator in self.generators for one in generator.asks(turns)]
        replies = await asyncio.gather(*(ask(one) for _, one in asked))
        for (generator, one), reply in zip(asked, replies, strict=True):
            if reply.usable:
                made.candidates.append(
                    Candidate(reply.text, generator.source, reply.model or one.model, None, one.system, reply)
                )
            else:
                made.lost.append(reply)
        made.pairs = await self._pairs(ask, prompt, made.candidates)
        return made

    async def _pairs(self, ask: Asker, prompt: str, candidates: list[Candidate]) -> list[Pair]:
        distinct = list({one.text: number for number, one in reversed(list(enumerate(candidates)))}.values())[::-1]
        if len(distinct) < 2:
            return []
        written = any(candidates[number].score is not None for number in distinct)
        if self.judges and len(distinct) > 2 and not written and self.strategy != PAIRWISE:
            way = self._ranked if self.strategy == LISTWISE else self._scored
            return await way(ask, prompt, [candidates[number].text for number in distinct], distinct)
        contenders = [pairing.Contender(one.text, one.source, one.score) for one in candidates]
        chosen = pairing.choose(prompt, contenders)
        return list(await asyncio.gather(*(self._judged(ask, prompt, candidates, *places) for places in chosen)))

    async def _judged(self, ask: Asker, prompt: str, candidates: list[Candidate], a: int, b: int) -> Pair:
        texts = candidates[a].text, candidates[b].text
        votes = await asyncio.gather(*(panel.pair(ask, judge, prompt, *texts) for judge in self.judges))
        said = [*(vote for of_judge in votes for vote in of_judge), *self.at_once(prompt, *texts)]
        return Pair(a, b, tuple(said), settle(said))

    async def _ranked(self, ask: Asker, prompt: str, texts: list[str], numbers: list[int]) -> list[Pair]:
        """The best against the worst, by the first judge's ranking; the others say what they think of that pair."""
        rankings = await asyncio.gather(*(panel.ranking(ask, judge, prompt, texts) for judge in self.judges))
        first = next((ranked for ranked in rankings if ranked), None)
        if first is None:
            return []
        a, b = pairing.sided(prompt, texts, first.order[0], first.order[-1])
        said = [
            opinion
            for judge, ranked in zip(self.judges, rankings, strict=True)
            if ranked
            for opinion in panel.opinions(judge, ranked, a, b)
        ]
        said += self.at_once(prompt, texts[a], texts[b])
        return [Pair(numbers[a], numbers[b], tuple(said), settle(said))]

    async def _scored(self, ask: Asker, prompt: str, texts: list[str], numbers: list[int]) -> list[Pair]:
        """The best against the worst by scores that each answer got alone, of the first judge."""
        scores = await panel.alone(ask, self.judges[0], prompt, texts)
        known = [(score, -place) for place, score in enumerate(scores) if score is not None]
        if len(known) < 2 or max(known)[0] == min(known)[0]:
            return []
        a, b = pairing.sided(prompt, texts, -max(known)[1], -min(known)[1])
        judge = self.judges[0]
        choice = "a" if (scores[a] or 0) > (scores[b] or 0) else "b"
        said = [
            Opinion(judge.source, judge.model, choice, scores[a], scores[b]),
            *self.at_once(prompt, texts[a], texts[b]),
        ]
        return [Pair(numbers[a], numbers[b], tuple(said), settle(said))]


def local(models: Sequence[str], count: int, seed: int) -> Generator:
    """The engine beside us answers; it takes seeds, so its answers need no principles to differ."""
    return Generator("local", Source.LOCAL, tuple(models), count, max_tokens=96, principles=("",), seed=seed)
