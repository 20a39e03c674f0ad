"""ledger: calls whose clients leave, whose engine fails, whose gateway and Redis are killed; then each against its row.

Plain and streamed calls by 48 clients through one gateway. One call in 25 fails at the engine: reset before its header,
reset in the middle, or a 500. Some clients leave in the middle of a stream, some at any instant. Meanwhile gateway and
Redis are killed (-9) in turn and started again. When the leases of what was killed have lapsed, `ledger_mismatch`
counts what does not hold (`books.mismatches`), holds that are still open, and a proof of the ledger that fails.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.gateway_parts import books, programs, servers
from benchmarks.ledger_parts.stand import NotThere, Process, Stand, listens, say, until
from tenants import metering
from tenants.models import UsageEvent

CLIENTS = 48
CHUNKS, GAP_US = 8, 60_000  # most streams last longer than the gateway waits before it listens for their client
FAILURES = 40  # of a thousand calls
LONGEST_SECONDS = 600
FIELDS = ("request_id", "source", "status", "key_id", "input_tokens", "output_tokens", "cost_nano")


@dataclass(frozen=True)
class Size:
    """`kills` of gateway and Redis each; `short` does not wait for leases to lapse: open holds are let be."""

    calls: int
    kills: int
    pause: float  # seconds between a client's calls
    short: bool = False


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    size = Size(1_500, 1, 0.0, short=True) if quick else Size(24_000, 4, 0.0)
    programs.upstream(ground, servers.engine_port(ground), CHUNKS, GAP_US, FAILURES, random.randrange(1 << 30))
    server = servers.ours(ground)
    servers.await_server(server)
    path = ground.directory / "told"
    path.touch()
    callers = start_callers(ground, server, size, path)
    began = time.monotonic()
    disturb(ground, server, size, path, callers)
    until(lambda: not callers.alive, "The callers do not end", LONGEST_SECONDS, callers.log)
    seconds = time.monotonic() - began
    holds = settle_down(ground, size)
    proved = prove(ground)
    told, rows = read_told(path), read_rows()
    found = books.mismatches(told, rows, holds if size.short else ())
    for sentence in found[:10]:
        say(f"  {sentence}")
    facts: dict[str, Any] = json.loads(callers.log.read_text().splitlines()[-1])
    facts |= {"seconds": round(seconds, 1), "kills": [server.process.kills, ground.redis.kills]}
    facts |= {"told": Counter(one.end for one in told), "rows": Counter(f"{row.source} {row.status}" for row in rows)}
    facts |= {"open_holds": len(holds), "proved": proved, "findings": found[:20]}
    say(f"{facts['made']:,} calls in {seconds:.0f} s ended as {facts['ends']}")
    say(f"callers know of {dict(facts['told'])}, the ledger has {dict(facts['rows'])}")
    say(f"killed: gateway {server.process.kills}, Redis {ground.redis.kills}; holds still open: {len(holds)}")
    return {"ledger_mismatch": len(found) + (0 if size.short else len(holds)) + (not proved)}, facts


def start_callers(ground: Stand, server: servers.Server, size: Size, told: Path) -> Process:
    plan = {"port": server.port, "key": server.key, "calls": size.calls, "clients": CLIENTS, "pause": size.pause}
    path = ground.directory / "callers.json"
    path.write_text(json.dumps(plan | {"told": str(told)}))
    made = ground.process("callers", "-m", "benchmarks.gateway_parts.callers", str(path))
    made.start()
    return made


def disturb(ground: Stand, server: servers.Server, size: Size, told: Path, callers: Process) -> None:
    """Kills gateway and Redis in turn, spread over the calls."""
    for number in range(2 * size.kills):
        reach(told, (number + random.uniform(0.3, 0.9)) / (2 * size.kills) * size.calls * 0.9, callers)
        if number % 2:
            ground.redis.kill()
            time.sleep(random.uniform(0, 0.5))
            ground.start_redis()
        else:
            server.process.kill()
            server.process.start()
            until(lambda: listens(server.port), "The gateway does not start again", 60, server.process.log)


def reach(told: Path, lines: float, callers: Process) -> None:
    """Waits until callers have told of so many calls, or are done."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while told.read_bytes().count(b"\n") < lines and callers.alive:
        if time.monotonic() > deadline:
            raise NotThere(f"The calls do not go on:\n{callers.log.read_text()[-2000:]}")
        time.sleep(0.05)


def settle_down(ground: Stand, size: Size) -> set[str]:
    """Until all events are booked and the leases of what was killed have lapsed; the calls that are held even then."""
    with redis.Redis.from_url(ground.redis_url, decode_responses=True) as client:

        def quiet() -> bool:
            return not client.xlen(metering.STREAM) and (size.short or not client.hlen(metering.HOLDS))

        deadline = time.monotonic() + 120
        still = 0
        while still < 3 and time.monotonic() < deadline:  # a gateway may bring events that it kept
            still = still + 1 if quiet() else 0
            time.sleep(1)
        return set(client.hkeys(metering.HOLDS))


def prove(ground: Stand) -> bool:
    """Whether `manage.py prove_ledger` says that rows, roll-ups and counters are one sum."""
    made = ground.process("prove", "manage.py", "prove_ledger")
    made.start()
    proved = made.wait() == 0
    if not proved:
        say(made.log.read_text()[-2000:])
    return proved


def read_told(path: Path) -> list[books.Told]:
    with path.open() as file:
        return books.read(file)


def read_rows() -> list[books.Row]:
    return [books.Row(*row) for row in UsageEvent.objects.values_list(*FIELDS)]
