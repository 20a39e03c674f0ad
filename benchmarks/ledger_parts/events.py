"""events: a million calls while everything that can die dies, and then what the ledger says of each of them.

A tenth goes through the real gateways (two processes, plain and streamed, an engine behind them), the rest through the
same counters from processes of their own. Meanwhile writer, gateways and Redis are killed (-9) at random instants and
started again; Redis is emptied once, and near the end its append-only file loses its last 64 kB. Every answer that was
delivered is on file; in the end each must have exactly one usage row that says, with its corrections, the same.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.ledger_parts import audit, cast, cut, serving
from benchmarks.ledger_parts.stand import NotThere, Process, Stand, free_port, listens, say, until
from tenants import ledger, metering
from tenants.ledger.writer import Writer

PRODUCERS = 2
CALM_SECONDS = 6.0  # around a loss of Redis's memory no gateway is killed: both at once is a loss of two copies
CUT_BYTES = 64 * 1024
LONGEST_SECONDS = 1_000


@dataclass(frozen=True)
class Size:
    by_gateway: int
    by_script: int
    kills: int  # of each: writer, gateways, Redis
    pause: float = 0  # seconds before each call of a producer
    load_pause: float = 0.15  # of a gateway's client: calls through both are made until the end
    short: bool = False  # does not wait for the leases of dead gateways to lapse: their holds are in the proof

    @property
    def total(self) -> int:
        return self.by_gateway + self.by_script


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    size = Size(300, 3_000, 1, pause=0.1, short=True) if quick else Size(100_000, 900_000, 21)
    people = cast.accounts(20, 2)
    Writer("bench").drain()
    chaos = Chaos(ground, size, people)
    started = time.monotonic()
    chaos.run()
    seconds = time.monotonic() - started
    chaos.settle_down()
    by_gateway = chaos.told[0].read_bytes().count(b"\n")
    found = audit.audit(chaos.told, chaos.tail)
    say(f"{found.delivered:,} calls, {by_gateway:,} by the gateways, in {seconds:.0f} s; killed {chaos.kills()}")
    chaos.writer.end()
    say(f"cut tail: {len(chaos.tail):,} settled calls, {found.tail_booked:,} in the ledger, {found.tail_lost} lost")
    say(f"{found.delivered:,} answers delivered, {found.rows:,} rows, {found.corrections} corrections")
    for finding in found.findings[:10]:
        say(f"  {finding}")
    figures: dict[str, float] = {"lost": found.lost, "doubled": found.doubled, "misstated": found.misstated}
    facts: dict[str, Any] = {
        "by_gateway": by_gateway,
        "kills": chaos.kills(),
        "seconds": round(seconds, 1),
        "calls_per_second": round(found.delivered / seconds),
    }
    return figures, facts | asdict(found) | {"tail": len(chaos.tail), "emptied": 1}


class Chaos:
    def __init__(self, ground: Stand, size: Size, people: list[cast.Account]) -> None:
        self.ground, self.size, self.people = ground, size, people
        self.told = [ground.directory / f"told-{name}" for name in ("load", *range(PRODUCERS))]
        self.tail: set[str] = set()
        self.calm_until = 0.0
        self.read: dict[Path, int] = {}
        self.lines = 0

    def run(self) -> None:
        """Until every call was made."""
        serving.engine(self.ground)
        self.writer = self.ground.writer()
        self.ports = [free_port(), free_port()]
        self.gateways = [serving.gateway(self.ground, port) for port in self.ports]
        for port, made in zip(self.ports, self.gateways, strict=True):
            until(lambda port=port: listens(port), "A gateway does not start", 60, made.log)  # type: ignore[misc]
        self.callers = [self.load(), *(self.producer(number) for number in range(PRODUCERS))]
        for caller in self.callers:
            caller.start()
        self.start()
        for share, act in self.acts():
            self.reach(share)
            act()
        (self.ground.directory / "enough").touch()
        self.reach(1.0)

    def acts(self) -> list[tuple[float, Callable[[], None]]]:
        """What happens at which share of all calls: kills in random order, an emptying amid them, the cut."""
        acts = [self.kill_writer, self.kill_redis, self.kill_gateway] * self.size.kills
        random.shuffle(acts)
        acts.insert(len(acts) // 2, self.empty)
        step = 0.93 / (len(acts) + 1)
        times = [0.02 + step * (number + random.random()) for number in range(len(acts))]
        return [*zip(times, acts, strict=True), (0.96, self.cut)]

    def reach(self, share: float) -> None:
        """Waits until so much is done."""
        while self.progress() < share:
            if time.monotonic() - self.started > LONGEST_SECONDS:
                raise NotThere(f"Only {self.progress():.1%} of the calls after {LONGEST_SECONDS} s; see the logs")
            for caller in self.callers:
                if not caller.alive and caller.wait():
                    raise NotThere(f"{caller.log.stem} failed:\n{caller.log.read_text()[-2000:]}")
            self.report()
            time.sleep(0.05)

    def start(self) -> None:
        self.started = self.reported = time.monotonic()

    def progress(self) -> float:
        """By the lines that callers wrote."""
        for path in self.told:
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self.read.get(path, 0))
                    news = file.read()
                self.read[path] = self.read.get(path, 0) + len(news)
                self.lines += news.count(b"\n")
        return self.lines / self.size.total

    def report(self) -> None:
        if time.monotonic() - self.reported > 20:
            self.reported = time.monotonic()
            say(f"{self.progress():.0%} after {self.reported - self.started:.0f} s, killed {self.kills()}")

    def kills(self) -> dict[str, int]:
        gateways = sum(gateway.kills for gateway in self.gateways)
        return {"writer": self.writer.kills, "gateway": gateways, "redis": self.ground.redis.kills}

    def kill_writer(self) -> None:
        self.writer.kill()
        time.sleep(random.uniform(0, 0.5))
        self.writer.start()

    def kill_gateway(self) -> None:
        while time.monotonic() < self.calm_until:
            time.sleep(0.1)
        number = random.randrange(len(self.gateways))
        self.gateways[number].kill()
        self.gateways[number].start()

    def kill_redis(self) -> None:
        self.ground.redis.kill()
        time.sleep(random.uniform(0, 0.5))
        self.ground.start_redis()

    def empty(self) -> None:
        """Redis forgets everything at once, while calls are open and events wait to be booked."""
        self.calm_down()
        with redis.Redis.from_url(self.ground.redis_url) as client:
            client.flushall()
        say(f"{self.progress():.0%}: Redis emptied")

    def cut(self) -> None:
        """Redis stops under load; the end of what it wrote is gone when it comes back."""
        self.calm_down()
        self.reach(self.progress() + 0.002)  # calls flow
        path = cut.newest(self.ground.directory / "redis", 2 * CUT_BYTES)
        self.ground.redis.end(signal.SIGKILL)
        path = cut.newest(self.ground.directory / "redis", 0) or path
        self.tail = cut.settled_in(cut.off(path, CUT_BYTES))
        self.ground.start_redis()
        say(f"{self.progress():.0%}: Redis lost the last 64 kB of its file, {len(self.tail)} settled calls")

    def calm_down(self) -> None:
        """Until the ledger has all that gateways sent before they were killed; no other is killed for a while."""
        with redis.Redis.from_url(self.ground.redis_url, decode_responses=True) as client:
            newest = client.xinfo_stream(metering.STREAM)["last-generated-id"]

            def booked() -> bool:
                return metering.place(client.hget(metering.STATE, "booked") or "0-0") >= metering.place(newest)

            until(booked, "The writer does not catch up", 120, self.writer.log)
        self.calm_until = time.monotonic() + CALM_SECONDS

    def settle_down(self) -> None:
        """Everybody stays until the ledger has what they keep; then the open holds of dead gateways lapse."""
        for caller in self.callers:
            until(lambda caller=caller: not caller.alive, f"{caller.log.stem} does not end", 120, caller.log)  # type: ignore[misc]
        until(self.quiet, "The stream or the holds do not become empty", 120, self.writer.log)

    def quiet(self) -> bool:
        """Nothing waits, three seconds long: by then every gateway has sent what it keeps."""
        with redis.Redis.from_url(self.ground.redis_url) as client:
            for _ in range(6):
                if (
                    client.xlen(metering.STREAM)
                    or client.hlen(metering.HOLDS)
                    or not client.hget(metering.STATE, "mark")
                ):
                    return False
                time.sleep(0.5)
        return True

    def load(self) -> Process:
        plan = {"urls": [f"http://127.0.0.1:{port}" for port in self.ports], "calls": self.size.by_gateway}
        plan |= {"keys": [account.text for account in self.people], "slots": len(self.people), "clients": 48}
        plan |= {"pause": self.size.load_pause, "steady": []}
        return self.caller("load", "benchmarks.ledger_parts.load", plan, self.told[0])

    def producer(self, number: int) -> Process:
        head = ledger.head()
        plan = {"people": [list(asdict(account).values()) for account in self.people], "clients": 48}
        plan |= {
            "pause": self.size.pause,
            "redis_url": self.ground.redis_url,
            "mark": head.mark,
            "sequence": head.sequence,
        }
        plan |= {"calls": self.size.by_script // PRODUCERS}
        return self.caller(f"producer-{number}", "benchmarks.ledger_parts.producer", plan, self.told[1 + number])

    def caller(self, name: str, module: str, plan: dict[str, Any], told: Path) -> Process:
        path = self.ground.directory / f"{name}.json"
        plan |= {"told": str(told), "enough": str(self.ground.directory / "enough")}
        path.write_text(json.dumps(plan))
        return self.ground.process(name, "-m", module, str(path))
