"""The server's own bill: every call that costs, in exact nano-dollars, with the fingerprint of its request.

The rule: what is on the bill was delivered or is on its way; refused calls (4xx, 5xx) are not on it. The fingerprint
is SHA-256 over the request's JSON with sorted keys, so the same question is the same however it was sent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from training.loopback import catalogue, tokens
from training.loopback.catalogue import Model


@dataclass(frozen=True)
class Line:
    """One call that costs. `kind` is what was asked (see `world.kind`), `at` a Unix time."""

    request_id: str
    fingerprint: str
    kind: str
    model: str
    cost_nano: int
    at: float
    usage: tokens.Usage
    batch_id: str = ""
    custom_id: str = ""


@dataclass
class Bill:
    lines: list[Line] = field(default_factory=list)
    total_nano: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # fingerprints of all that arrived, billed or not
    billed: Counter[str] = field(default_factory=Counter)  # fingerprints of what is on the bill
    refused: Counter[str] = field(default_factory=Counter)  # status and type of calls that cost nothing

    def add(self, line: Line) -> None:
        self.lines.append(line)
        self.total_nano += line.cost_nano
        self.billed[line.fingerprint] += 1

    def summary(self, whole: bool = False) -> dict[str, Any]:
        """For `GET /_bill`; `whole` adds every line."""
        times = [line.at for line in self.lines]
        usage = [line.usage for line in self.lines]
        told: dict[str, Any] = {
            "total_nano": self.total_nano,
            "calls": len(self.lines),
            "kinds": Counter(line.kind for line in self.lines),
            "models": Counter(line.model for line in self.lines),
            "refused": self.refused,
            "repeated": {one: number for one, number in self.billed.items() if number > 1},
            "tokens": {name: sum(getattr(one, name) for one in usage) for name in tokens.Usage.__annotations__},
            "first_at": min(times, default=None),
            "last_at": max(times, default=None),
        }
        if whole:
            told["lines"] = [asdict(line) for line in self.lines]
        return told


def fingerprint(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def cost(model: Model, usage: tokens.Usage, batch: bool = False) -> int:
    """Nano-dollars of one call, rounded half up once; a batch costs half."""
    price = (
        usage.input * model.input
        + usage.read * model.cache_read
        + usage.write_5m * model.write_5m
        + usage.write_1h * model.write_1h
        + usage.output * model.output
    )
    if model.id == "claude-haiku-5-5" and usage.total_input > catalogue.LONG_PROMPT:
        price *= 5
    return (price + 1) // 2 if batch else price
