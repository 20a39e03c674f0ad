"""What Redis answered, call by call, in the order in which it did things: also across an emptying."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.ledger_parts import cast
from inference.gateway.pipeline import Pipeline
from tenants import metering


@dataclass(slots=True)
class Call:
    """What happened to one admitted call: numbers of Redis's steps, and in which of its lives (see `Watch.life`)."""

    open: cast.Open
    at_us: int
    admitted: tuple[int, int]
    actual_tokens: int = 0
    cost_nano: int = 0
    ended: tuple[int, int] = (9, 0)


class Watch:
    """Every call by its id. Redis has three lives: before it was emptied, without counters, rebuilt."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.settled: dict[str, metering.Settlement] = {}
        self.emptied_us = self.rebuilt_us = 1 << 62
        self.refused: Counter[str] = Counter()

    def life(self, at_us: int, sequence: int, highest: int) -> int:
        """Which one a step belongs to; a settlement's instant is known to the millisecond, its number decides."""
        if abs(at_us - self.emptied_us) < 2_000:
            return 0 if sequence > highest // 2 else 1
        return 0 if at_us < self.emptied_us else 1 if at_us < self.rebuilt_us else 2

    def close(self) -> None:
        """Gives each call its end."""
        highest = max((call.admitted[1] for call in self.calls.values()), default=0)
        for id_, call in self.calls.items():
            call.admitted = self.life(call.at_us, call.admitted[1], highest), call.admitted[1]
            done = self.settled[id_]
            call.ended = self.life(metering.place(done.entry)[0] * 1_000, done.sequence, highest), done.sequence


class Witness(Pipeline):
    """Notes what Redis answers to the first settlement of each call."""

    def __init__(self, url: str, watch: Watch) -> None:
        super().__init__(url)
        self._watch = watch

    def run(self, script: str, packed: metering.Packed) -> asyncio.Future[Any]:
        reply = super().run(script, packed)
        if script is metering.SETTLE:
            reply.add_done_callback(lambda done: self._note(str(packed[1][1]), done))
        return reply

    def _note(self, request_id: str, done: asyncio.Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            settled = metering.settlement(done.result())
            if settled.written > 0:
                self._watch.settled.setdefault(request_id, settled)
