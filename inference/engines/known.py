"""Known answers: what an adapter says to a few prompts, recorded when it was trained, asked for after each load. Pure.

An engine may serve another adapter than it was asked for, or none, and say nothing (vllm#47724). So each adapter comes
with greedy tokens and their log-probabilities in float32, with and without it. Engines compute with fewer bits, which
moves a log-probability by some hundredths: a token may differ only where the record says that two were nearly even, and
the log-probabilities must lie nearer to the adapter's than to those without it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAME = "known_answers.json"  # beside the adapter's weights, signed with them
VERSION = 1
MOST_CASES, MOST_TOKENS, MOST_PROMPT = 32, 256, 4096
EVEN = 0.1  # nats between the first and the second choice below which fewer bits may turn them round
APART = 0.02  # nats between with and without the adapter below which log-probabilities do not tell which it was


class Malformed(ValueError):
    """The file is no record of known answers."""


class WrongAnswer(Exception):
    """An engine does not answer as the adapter does."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt and its greedy answer as token ids; of each answer token the natural logarithm of its probability with
    and without the adapter, and how much more likely it was than the second choice (nats).
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    base_logprobs: tuple[float, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """`base_digest` is that of the base model's files it was recorded with; empty where nobody knew it."""

    base: str
    base_digest: str
    cases: tuple[Case, ...]


def dump(known: Known) -> bytes:
    cases = [{name: list(getattr(case, name)) for name in Case.__slots__} for case in known.cases]
    base = {"name": known.base, "digest": known.base_digest}
    return json.dumps({"version": VERSION, "base": base, "cases": cases}, ensure_ascii=False).encode() + b"\n"


def parse(text: bytes) -> Known:
    """Raises Malformed."""
    try:
        told = json.loads(text)
        if told["version"] != VERSION:
            raise Malformed(f"known answers of version {told['version']!r}, not {VERSION}")
        cases = tuple(map(_case, told["cases"]))
        known = Known(str(told["base"]["name"]), str(told["base"]["digest"]), cases)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise error if isinstance(error, Malformed) else Malformed(f"not known answers: {error!r}"[:200]) from error
    if not 1 <= len(cases) <= MOST_CASES:
        raise Malformed(f"there are {len(cases)} known answers, not 1 to {MOST_CASES}")
    return known


def _case(told: dict[str, Any]) -> Case:
    ids = [tuple(_whole(one) for one in told[name]) for name in ("prompt", "tokens")]
    numbers = [tuple(_finite(one) for one in told[name]) for name in ("logprobs", "base_logprobs", "margins")]
    case = Case(*ids, *numbers)
    if not 1 <= len(case.prompt) <= MOST_PROMPT or not 1 <= len(case.tokens) <= MOST_TOKENS:
        raise Malformed("a known answer has too few or too many tokens")
    if {len(case.logprobs), len(case.base_logprobs), len(case.margins)} != {len(case.tokens)}:
        raise Malformed("a known answer has not one number for each token")
    return case


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise Malformed(f"{value!r} is no token id")
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Malformed(f"{value!r} is no finite number")
    return float(value)


def check(known: Known, answers: Sequence[tuple[Sequence[int], Sequence[float]]]) -> None:
    """Raises WrongAnswer unless `answers`, (token ids, log-probabilities) of each case, are the adapter's."""
    distance = apart = 0.0
    compared = 0
    for number, (case, (tokens, logprobs)) in enumerate(zip(known.cases, answers, strict=True), 1):
        for place, expected in enumerate(case.tokens):
            found = tokens[place] if place < len(tokens) else None
            if found != expected:
                if case.margins[place] < EVEN:
                    break  # from here on the two answer different texts
                raise WrongAnswer(f"token {place + 1} of answer {number} is {found}, not {expected}")
            distance += abs(logprobs[place] - case.logprobs[place])
            apart += abs(case.base_logprobs[place] - case.logprobs[place])
            compared += 1
    if not compared:
        raise WrongAnswer("no token could be compared")
    if apart / compared > APART and distance > apart / 2:
        raise WrongAnswer(
            f"its log-probabilities are {distance / compared:.3f} nats off; without the adapter they would be "
            f"{apart / compared:.3f} off"
        )
