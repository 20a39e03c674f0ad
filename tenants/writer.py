"""Moves the usage stream into the ledger: `manage.py ledger_writer` runs this for as long as it lives.

Each turn: what this writer read before a crash, then what a dead writer left, then what is new. Once a second it
books calls whose gateway died (status `estimated`) and asserts every tenant's epoch.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import Any

import redis
from django.db import DatabaseError, DataError, IntegrityError, close_old_connections

from tenants import counters, epochs, ledger, metering

log = logging.getLogger(__name__)
BATCH = 500
PAUSE_SECONDS = 0.02  # between batches: SQLite's other writers get their turn
BLOCK_MS = 200
ORPHANED_MS = 30_000  # an entry that its reader has not confirmed for so long is taken over
BACK_OFF_SECONDS = 1.0
UNBOOKABLE = (ValueError, IntegrityError, DataError)  # the event's fault; anything else is the weather

Entry = tuple[str, dict[str, str]]


class Writer:
    """One consumer of the usage stream. Two of them do no harm: a row is booked once, whoever comes first."""

    def __init__(self, name: str) -> None:
        self._name, self._stopping = name, False
        self._redis = counters.connect()
        self._chores_at = 0.0

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            try:
                self._ensure_group()
                while not self._stopping:
                    self.turn(BLOCK_MS)
                    time.sleep(PAUSE_SECONDS)
            except (redis.RedisError, DatabaseError) as error:
                log.warning("The ledger writer waits: %s", error)
                close_old_connections()
                time.sleep(BACK_OFF_SECONDS)

    def turn(self, block_ms: int | None = None) -> int:
        """Chores if they are due, then one batch; answers how many entries it took."""
        if time.monotonic() - self._chores_at >= 1:
            self._chores_at = time.monotonic()
            close_lapsed(self._redis)
            epochs.assert_all()
        entries = self._entries(block_ms)
        if entries:
            book(self._redis, entries)
        return len(entries)

    def drain(self) -> int:
        """Everything that is there now; answers how many entries."""
        self._ensure_group()
        total = 0
        while count := self.turn():
            total += count
        return total

    def _ensure_group(self) -> None:
        try:
            self._redis.xgroup_create(metering.STREAM, metering.GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _entries(self, block_ms: int | None) -> list[Entry]:
        group, stream = metering.GROUP, metering.STREAM
        if mine := _read(self._redis.xreadgroup(group, self._name, {stream: "0"}, count=BATCH)):
            return mine
        taken = self._redis.xautoclaim(stream, group, self._name, ORPHANED_MS, count=BATCH)
        if taken[1]:
            return list(taken[1])
        return _read(self._redis.xreadgroup(group, self._name, {stream: ">"}, count=BATCH, block=block_ms))


def book(client: redis.Redis, entries: list[Entry]) -> None:
    """Entries into the ledger, then off the stream. What cannot be booked goes to a stream for a person to look at."""
    readable, refused = [], []
    for entry in entries:
        try:
            readable.append((entry, asdict(metering.read_event(entry[1].get("event", "")))))
        except metering.UnreadableEvent:
            refused.append(entry)
    try:
        ledger.write(event for _, event in readable)
    except UNBOOKABLE:  # one of them is wrong, or another writer was quicker: one by one tells
        refused += [entry for entry, event in readable if not _booked(event)]
    _confirm(client, entries, refused)


def _booked(event: dict[str, Any]) -> bool:
    for _ in range(2):
        try:
            ledger.write([event])
            return True
        except UNBOOKABLE as error:
            log.error("%s: %s", event["request_id"], error)
    return False


def _confirm(client: redis.Redis, entries: list[Entry], refused: list[Entry]) -> None:
    pipe = client.pipeline(transaction=True)
    for number, fields in refused:
        log.error("The usage event %s cannot be booked; it is kept in %s.", number, metering.DEAD_STREAM)
        pipe.xadd(metering.DEAD_STREAM, fields)  # type: ignore[arg-type]
    ids = [number for number, _ in entries]
    pipe.xack(metering.STREAM, metering.GROUP, *ids)
    pipe.xdel(metering.STREAM, *ids)
    pipe.execute()


def close_lapsed(client: redis.Redis) -> int:
    """Settles the holds whose gateway is gone, at their worst case; answers how many."""
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    lapsed: list[Any] = client.zrangebyscore(metering.LEASES, "-inf", now, start=0, num=BATCH)
    if not lapsed:
        return 0
    closed = 0
    rows: list[Any] = client.hmget(metering.HOLDS, lapsed)
    for request_id, row in zip(lapsed, rows, strict=True):
        if row is None:
            client.zrem(metering.LEASES, request_id)
            continue
        try:
            event = metering.held_event(row)
        except metering.UnreadableEvent as error:
            log.error("The hold of %s is kept in %s: %s", request_id, metering.DEAD_STREAM, error)
            _run(client, metering.BURY, *metering.bury(request_id))
            continue
        closed += _run(client, metering.SETTLE, *metering.settle(event, only_if_lapsed=True))
    log.warning("Booked %d calls of a gateway that is gone, as estimated.", closed)
    return closed


def _run(client: redis.Redis, script: str, keys: list[str], args: list[str | bytes]) -> int:
    return int(client.eval(script, len(keys), *keys, *args))


def _read(reply: Any) -> list[Entry]:
    return list(reply[0][1]) if reply else []
