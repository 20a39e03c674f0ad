"""What a preference run will cost: a quote before it, and the price of each call after it.

Prices are Anthropic's list prices in integer nano-dollars per million tokens, as published on the day below. A model
that is not listed is priced as the dearest one, so that a cap is never passed by ignorance.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from tenants import metering
from training.problems import Problem

NANO = 1_000_000_000
PRICES_OF = "2026-11-20"
PRICES = {  # model: (input, output)
    "claude-haiku-5-5": (NANO // 10, NANO // 2),
    "claude-sonnet-5-5": (2 * NANO, 10 * NANO),
    "claude-opus-5-5": (4 * NANO, 20 * NANO),
    "claude-fable-5-1": (10 * NANO, 50 * NANO),
    "claude-haiku-4-5": (1 * NANO, 5 * NANO),
}
LONG_PROMPT = 100_000  # tokens; above it the whole request of a Haiku 5.5 costs five times as much
CHARACTERS_PER_TOKEN = 2.5  # Turkish text; measured tokens are what is paid in the end
ANSWER_TOKENS = (150, 600)  # an answer, likely and at most
VERDICT_TOKENS = (200, 1_000)
RUBRIC_TOKENS = 700


@dataclass(frozen=True)
class Quote:
    """What is expected and what is possible: calls, and nano-dollars from likely to worst."""

    calls: int
    likely_nano: int
    most_nano: int


def cost(model: str, input_tokens: int, output_tokens: int) -> int:
    """Nano-dollars of one call, rounded half up once."""
    price_in, price_out = PRICES.get(model) or max(PRICES.values())
    if model == "claude-haiku-5-5" and input_tokens > LONG_PROMPT:
        price_in, price_out = 5 * price_in, 5 * price_out
    return metering.cost(input_tokens, output_tokens, price_in, price_out)


def quote(prompts: Sequence[str], config: dict[str, Any]) -> Quote:
    """What `config` (see `rlaif.default_config`) will cost for these prompts. Without Claude in it: nothing."""
    answers = config["num_responses"] * len(prompts) if "claude" in config["generators"] else 0
    pairs = len(prompts) * min(3, config["num_responses"] - 1)
    verdicts = 2 * pairs if "claude" in config["judges"] else 0  # both orders
    tokens = sum(map(len, prompts)) / CHARACTERS_PER_TOKEN / max(1, len(prompts))
    totals = []
    for answer, verdict in zip(ANSWER_TOKENS, VERDICT_TOKENS, strict=True):
        generation = cost(config["generator_model"], int(tokens) + 150, answer)
        judgement = cost(config["judge_model"], int(tokens) + RUBRIC_TOKENS + 2 * answer, verdict)
        totals.append(answers * generation + verdicts * judgement)
    return Quote(answers + verdicts, *totals)


class CapReached(Problem):
    """The next call could pass the cap, so it is not made."""

    def __init__(self, cap_nano: int, spent_nano: int) -> None:
        self.cap_nano, self.spent_nano = cap_nano, spent_nano
        words = {"cap": f"{cap_nano / NANO:.4f}", "spent": f"{spent_nano / NANO:.4f}"}
        super().__init__(
            _("Stopped at the cost cap of $%(cap)s ($%(spent)s spent): raise the cap and start again; "
              "what was paid for is kept.") % words
        )  # fmt: skip


@dataclass
class Purse:
    """The money of one run, shared by threads: what the calls in the air could cost at most is held back."""

    cap_nano: int
    spent_nano: int = 0
    held_nano: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def hold(self, most_nano: int) -> Iterator[None]:
        """Holds the most a call can cost while it is made. Raises CapReached when there is not that much left."""
        with self._lock:
            if self.spent_nano + self.held_nano + most_nano > self.cap_nano:
                raise CapReached(self.cap_nano, self.spent_nano)
            self.held_nano += most_nano
        try:
            yield
        finally:
            with self._lock:
                self.held_nano -= most_nano

    def pay(self, nano: int) -> None:
        """Counts what a call did cost; to be called before its hold is given back."""
        with self._lock:
            self.spent_nano += nano
