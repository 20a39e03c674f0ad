"""A model as judge, asked so that its habits cancel out: in both orders, and once more where it changed its mind.

The rule: every look is a vote that is kept; one that cannot be read is asked for once more, and then it abstains with
its cost. Which calls are made depends on nothing but what came back, so that a run that starts again asks the same.

Pure: an `Asker` sends. Swapping the order is arXiv 2306.05685's remedy for a judge that favours a place; for a list the
two orders are each other's reverse, so that each answer stands as often ahead of another as behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.asking import VERDICT, Ask, Asker, Reply
from training.judges import ABSTAIN, Opinion, rubric
from training.models import Choice, Source

MAX_TOKENS = 1_200  # thinking included
AGAIN = 2  # times that one vote is asked for


@dataclass(frozen=True)
class Judge:
    """Who is asked, and as whose word it counts. `seed` tells the calls of a run that wants fresh ones."""

    provider: str
    model: str
    source: str = Source.CLAUDE
    effort: str = "low"
    seed: int = 0


@dataclass(frozen=True)
class Placing:
    """One look at all answers: `order` has them as they were shown, `ranking` best first (both by number), `scores` by
    number. An empty ranking: the look could not be read, and `why` says so."""

    order: tuple[int, ...]
    ranking: tuple[int, ...]
    scores: tuple[float, ...]
    why: str
    reply: Reply


@dataclass(frozen=True)
class Ranking:
    """What the looks say together: answers from the best to the worst, and whether all looks agreed on both ends."""

    order: tuple[int, ...]
    steady: bool
    placings: tuple[Placing, ...]


async def pair(ask: Asker, judge: Judge, prompt: Any, a: str, b: str) -> list[Opinion]:
    """The votes on a pair: A first, B first, and a third one where they differ. Raises what `ask` raises."""
    votes = list(await asyncio.gather(*(_vote(ask, judge, prompt, (a, b), vote) for vote in (0, 1))))
    readable = [vote.choice for vote in votes if vote.choice]
    if len(readable) == 2 and readable[0] != readable[1]:
        votes.append(await _vote(ask, judge, prompt, (a, b), 2 + _side(prompt, a, b)))
    return votes


async def ranking(ask: Asker, judge: Judge, prompt: Any, answers: Sequence[str]) -> Ranking | None:
    """All answers in one look, in two opposite orders, a third one where the ends differ; None: nothing was read."""
    orders = _orders(prompt, answers)
    looks = list(await asyncio.gather(*(_look(ask, judge, prompt, answers, order) for order in orders[:2])))
    read = [look.ranking for look in looks if look.ranking]
    steady = len(read) == 2 and _ends(read[0]) == _ends(read[1])
    if read and not steady:
        looks.append(await _look(ask, judge, prompt, answers, orders[2]))
        read = [look.ranking for look in looks if look.ranking]
    return Ranking(_mean_order(looks), steady, tuple(looks)) if read else None


async def alone(ask: Asker, judge: Judge, prompt: Any, answers: Sequence[str]) -> list[float | None]:
    """Each answer's own score from 0 to 10, None where it could not be read: cheap to ask, and coarse."""

    async def score(number: int, answer: str) -> float | None:
        question = rubric.alone_question(prompt, answer)
        asked = _ask(judge, rubric.ALONE, question, rubric.ALONE_SCHEMA, ("alone", number))
        said: float | None = (await _readable(ask, asked, rubric.read_alone))[0]
        return said

    return list(await asyncio.gather(*(score(number, answer) for number, answer in enumerate(answers))))


def opinions(judge: Judge, ranked: Ranking, a: int, b: int) -> list[Opinion]:
    """What each look at the list says of the pair of answers number `a` and `b`."""
    return [_opinion(judge, look, a, b) for look in ranked.placings]


def _opinion(judge: Judge, look: Placing, a: int, b: int) -> Opinion:
    name = _name(judge, look.reply, rubric.LIST)
    swapped = look.order.index(b) < look.order.index(a)
    if not look.ranking:
        return Opinion(judge.source, name, ABSTAIN, swapped=swapped, rationale=look.why, call=look.reply.call)
    choice = Choice.A if look.ranking.index(a) < look.ranking.index(b) else Choice.B
    return Opinion(judge.source, name, choice, look.scores[a], look.scores[b], swapped, look.why, call=look.reply.call)


async def _vote(ask: Asker, judge: Judge, prompt: Any, texts: tuple[str, str], vote: int) -> Opinion:
    """Vote 0 and 2 show A first, 1 and 3 show B first; 2 and 3 are third votes."""
    swapped = bool(vote % 2)
    first, second = texts[::-1] if swapped else texts
    question = rubric.pair_question(prompt, first, second)
    asked = _ask(judge, rubric.PAIR, question, rubric.PAIR_SCHEMA, ("pair", vote))
    said, why, reply = await _readable(ask, asked, rubric.read_pair)
    name = _name(judge, reply, rubric.PAIR)
    if said is None:
        return Opinion(judge.source, name, ABSTAIN, None, None, swapped, why, reply.cost_nano, reply.call)
    score_a, score_b = said.scores[::-1] if swapped else said.scores
    choice = _choice(said.winner, swapped)
    return Opinion(judge.source, name, choice, score_a, score_b, swapped, said.reason, reply.cost_nano, reply.call)


async def _look(ask: Asker, judge: Judge, prompt: Any, answers: Sequence[str], order: tuple[int, ...]) -> Placing:
    question = rubric.list_question(prompt, [answers[number] for number in order])
    asked = _ask(judge, rubric.LIST, question, rubric.list_schema(len(order)), ("list", *order))
    said, why, reply = await _readable(ask, asked, lambda text: rubric.read_list(text, len(order)))
    if said is None:
        return Placing(order, (), (), why, reply)
    scores = tuple(said.scores[order.index(number)] for number in range(len(order)))
    return Placing(order, tuple(order[place] for place in said.ranking), scores, said.reason, reply)


async def _readable(ask: Asker, asked: Ask, read: Any) -> tuple[Any, str, Reply]:
    """What was said, or None and why; a verdict that cannot be read is asked for AGAIN, a refusal stays one."""
    why = ""
    for again in range(AGAIN):
        reply = await ask(replace(asked, place=(*asked.place, again)))
        try:
            return read(reply.text), "", reply
        except rubric.Unreadable as error:
            why = f"{reply.stop_reason}: {error}"
        if reply.stop_reason == "refusal":
            break
    return None, why, reply


def _ask(judge: Judge, system: str, question: str, schema: dict[str, Any], place: tuple[str | int, ...]) -> Ask:
    turn = [{"role": "user", "content": question}]
    where = (*place, judge.seed)
    return Ask(VERDICT, judge.provider, judge.model, system, turn, MAX_TOKENS, judge.effort, schema, where)


def _name(judge: Judge, reply: Reply, system: str) -> str:
    return f"{reply.model or judge.model} {rubric.version(system)}"


def _choice(winner: str, swapped: bool) -> str:
    if winner in {"tie", "both_bad"}:
        return Choice.TIE if winner == "tie" else Choice.BAD
    return Choice.A if (winner == "first") != swapped else Choice.B


def _ends(order: Sequence[int]) -> tuple[int, int]:
    return order[0], order[-1]


def _mean_order(looks: Sequence[Placing]) -> tuple[int, ...]:
    """By mean place (Borda), then by mean score, then by number."""
    read = [look for look in looks if look.ranking]
    numbers = range(len(read[0].order))
    places = {n: sum(look.ranking.index(n) for look in read) for n in numbers}
    scores = {n: sum(look.scores[n] for look in read) for n in numbers}
    return tuple(sorted(numbers, key=lambda n: (places[n], -scores[n], n)))


def _orders(prompt: Any, answers: Sequence[str]) -> list[tuple[int, ...]]:
    """An order that the texts decide, its reverse, and one in which the middle stands outside."""
    numbers = sorted(range(len(answers)), key=lambda n: (_hash(prompt, answers[n]), n))
    inside_out = numbers[1::2] + numbers[::2]
    return [tuple(numbers), tuple(numbers[::-1]), tuple(inside_out)]


def _side(prompt: Any, a: str, b: str) -> int:
    return _hash(prompt, a, b)[0] & 1


def _hash(*texts: Any) -> bytes:
    return hashlib.sha256("\x00".join(map(str, texts)).encode("utf-8", "backslashreplace")).digest()
