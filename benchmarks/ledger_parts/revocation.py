"""revocation: how long a key lives on after its revocation was committed, under load on two gateways.

Keys that callers are using are revoked at random instants, by the same verb as the console. The last admission is what
the ledger says, by Redis's clock; the commit is the instant at which the database's COMMIT had returned, by this
machine's, which is the same clock. Long streams end at their next renewal.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import redis
from django.db import transaction
from django.db.models import Max

from benchmarks.ledger_parts import cast, serving
from benchmarks.ledger_parts.stand import NotThere, Stand, say
from tenants import keys, metering
from tenants.models import APIKey, UsageEvent

SLOTS, CLIENTS, STREAMS, STEADY = 10, 32, 6, 8  # steady keys are never revoked: they make the load
FAR = 1_000_000_000


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    wanted, streams_wanted = (6, 0) if quick else (220, STREAMS)
    people = cast.accounts(4, (wanted + SLOTS + STREAMS + STEADY) // 4 + 2)
    random.shuffle(people)
    streaming, people = people[:streams_wanted], people[streams_wanted:]
    writer = ground.writer()
    ports = serving.start(ground, gateways=2)
    streams = [Stream(ports[number % 2], account) for number, account in enumerate(streaming)]
    load, active = start_load(ground, ports, people)
    committed: dict[str, float] = {}
    started = time.monotonic()
    try:
        while len(committed) < wanted:
            time.sleep(random.uniform(0.05, 0.25))
            able = [key for key, since in list(active.items()) if time.monotonic() - since > 0.3]
            if load.poll() is not None:
                raise NotThere("The load ended before all keys were revoked")
            if able:
                key = random.choice(able)
                active.pop(key)
                committed[key] = revoke(key)
        for stream in streams:
            stream.revoked_at = revoke(stream.account.key)
        time.sleep(2)
        for stream in streams:
            stream.thread.join(30)
    finally:
        load.kill()
        load.wait()
    under = time.monotonic() - started
    book(ground, writer)
    return figures(committed, streams, under)


def figures(
    committed: dict[str, float], streams: list[Stream], seconds: float
) -> tuple[dict[str, float], dict[str, Any]]:
    newest = dict(UsageEvent.objects.values_list("key").annotate(Max("occurred_at")))
    waits = sorted(max(0.0, newest[key].timestamp() - at) * 1e3 for key, at in committed.items() if key in newest)
    after = sum(wait > 0 for wait in waits)
    calls = UsageEvent.objects.count()
    ends = [round(stream.ended_at - stream.revoked_at, 1) for stream in streams]
    say(f"{len(waits)} keys revoked under {calls / seconds:.0f} calls/s; {after} were admitted once more after it")
    say(f"streams of revoked keys ended after {ends} s")
    found = {"revocation_p99_ms": round(waits[-(-99 * len(waits) // 100) - 1], 2)}
    return found, {
        "revocations": len(waits),
        "calls": calls,
        "admitted_after": after,
        "max_ms": round(waits[-1], 2),
    } | {"calls_per_second": round(calls / seconds), "streams_end_s": ends}


def revoke(key_id: str) -> float:
    """The instant of the commit."""
    at: list[float] = []
    key = APIKey.objects.select_related("tenant").get(pk=key_id)
    with transaction.atomic():
        transaction.on_commit(lambda: at.append(time.time()))  # before the verb's own: it runs first
        keys.revoke(key, None)
    return at[0]


def start_load(
    ground: Stand, ports: list[int], people: list[cast.Account]
) -> tuple[subprocess.Popen[str], dict[str, float]]:
    """The load's process, and the keys in use with the instant from which they are."""
    by_text = {account.text: account.key for account in people}
    plan = {"urls": [f"http://127.0.0.1:{port}" for port in ports], "calls": FAR, "keys": list(by_text)[STEADY:]}
    plan |= {"slots": SLOTS, "clients": CLIENTS, "told": "/dev/null", "pause": 0, "enough": "/"}
    plan["steady"] = list(by_text)[:STEADY]
    path = ground.directory / "load.json"
    path.write_text(json.dumps(plan))
    command = [sys.executable, "-m", "benchmarks.ledger_parts.load", str(path)]
    load = subprocess.Popen(command, env=ground.env, cwd=Path.cwd(), stdout=subprocess.PIPE, text=True)
    active: dict[str, float] = {}

    def listen() -> None:
        assert load.stdout is not None
        for line in load.stdout:
            if line.strip() in by_text:
                active[by_text[line.strip()]] = time.monotonic()

    threading.Thread(target=listen, daemon=True).start()
    return load, active


class Stream:
    """A long stream with a key that is revoked on the way."""

    def __init__(self, port: int, account: cast.Account) -> None:
        self.account, self._port = account, port
        self.revoked_at = self.ended_at = 0.0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        body = {
            "model": cast.MODEL,
            "messages": [{"role": "user", "content": "slow"}],
            "stream": True,
            "max_tokens": 200,
        }
        headers = {"authorization": f"Bearer {self.account.text}", "content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=90)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = connection.getresponse()
        try:
            while reply.read1():
                pass
        except (http.client.HTTPException, OSError):
            pass
        self.ended_at = time.time()


def book(ground: Stand, writer: Any) -> None:
    """Waits until the writer has booked what is in the stream and no call is open."""
    with redis.Redis.from_url(ground.redis_url) as client:
        deadline = time.monotonic() + 60
        while client.xlen(metering.STREAM) or client.hlen(metering.HOLDS):
            if time.monotonic() > deadline:
                raise NotThere("The writer does not book the calls")
            time.sleep(0.1)
    writer.end()
