"""Calls without HTTP, in a process of their own: `python -m benchmarks.ledger_parts.producer PLAN` (JSON).

The gateway's own counters admit and settle them, so they renew, keep and send again what a gateway would. Each call
that `settle` has taken is written to the file `told` before the next one. It ends when `calls` were made,
the file `enough` is there, and the ledger has all of them.
"""

# ruff: noqa: E402

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import django
import redis.asyncio
from redis.exceptions import RedisError

django.setup()  # before the models are imported

from benchmarks.ledger_parts import cast
from inference.gateway.admission import Counters
from inference.gateway.pipeline import Unavailable
from tenants import metering


class Producer:
    def __init__(self, plan: dict[str, Any], told: TextIO) -> None:
        self.people = [cast.Account(*account) for account in plan["people"]]
        self.calls, self.told, self.pause = plan["calls"], told, plan["pause"]
        self.enough = Path(plan["enough"])
        self.counters = Counters(plan["redis_url"], cast.heedless)
        self.client = redis.asyncio.Redis.from_url(plan["redis_url"], decode_responses=True, socket_timeout=3)
        self.mark, self.sequence = plan["mark"], plan["sequence"]
        self.terms: dict[str, metering.Terms] = {}
        self.refused: Counter[str] = Counter()

    async def run(self, at_once: int) -> None:
        self.adopt(self.mark, self.sequence)
        self.counters.start()
        await asyncio.gather(self.watch(), *(self.caller() for _ in range(at_once)))

    @property
    def done(self) -> bool:
        return self.calls <= 0 and self.enough.exists()

    def adopt(self, mark: str, sequence: int) -> None:
        self.mark = mark
        self.counters.adopt(mark, sequence)
        self.terms = {account.key: cast.terms(account, mark) for account in self.people}

    async def watch(self) -> None:
        """Learns a new mark, as a gateway does by reading its snapshots again; ends when all is booked."""
        while not self.done or self.counters._kept or self.counters._open:
            await asyncio.sleep(0.1)
            try:
                mark = await self.client.hget(metering.STATE, "mark")
            except (RedisError, OSError):
                continue
            if mark and mark != self.mark:
                self.adopt(str(mark), 0)

    async def caller(self) -> None:
        while not self.done:
            self.calls -= 1
            await asyncio.sleep(self.pause)
            while why := await self.call():
                self.refused[why] += 1
                await asyncio.sleep(0.1)

    async def call(self) -> str:
        """One call, admitted and settled; why not, if it was refused."""
        account = random.choice(self.people)
        call = cast.Open(cast.event(account), self.terms[account.key], 20_000_000, 1_200)
        try:
            verdict = await self.counters.admit(call)
        except Unavailable:
            return "unavailable"
        if verdict.reason:
            return verdict.limit_name or verdict.reason
        end = cast.settled(call.event, random.randint(5, 400), random.randint(1, 700))
        await self.counters.settle(end)
        self.told.write(f"{end.request_id}\t{account.key}\t{end.input_tokens}\t{end.output_tokens}\n")
        return ""


async def work(plan: dict[str, Any], told: TextIO) -> None:
    started = time.process_time()
    producer = Producer(plan, told)
    await producer.run(plan["clients"])
    print(json.dumps({"refused": producer.refused, "cpu_s": round(time.process_time() - started, 1)}), flush=True)


def main(path: str) -> None:
    import uvloop

    with open(path) as file:
        plan = json.load(file)
    with open(plan["told"], "a", buffering=1) as told:
        uvloop.run(work(plan, told))


if __name__ == "__main__":
    main(sys.argv[1])
