"""What the ledger's writer does beside the stream: each second lapsed holds and epochs, each minute the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import redis
from django.db.models import Q

from tenants import counters, epochs, metering
from tenants.ledger.entries import Entry
from tenants.models import APIKey, LedgerHead
from tenants.refusals import tally

log = logging.getLogger(__name__)
SECOND, MINUTE = 1.0, 60.0
AT_ONCE = 500  # lapsed holds


class Chores:
    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._done_at = self._looked_at = float("-inf")
        self._tidied_at = time.monotonic()
        self._used: dict[str, str] = {}
        self._patient_until = 0.0

    def wait(self, seconds: float) -> None:
        """Nobody is taken for gone for a while: gateways that met the same outage renew their leases first."""
        self._patient_until = time.monotonic() + seconds

    def note(self, batch: Iterable[Entry]) -> None:
        """Which keys these entries used, and when."""
        used = self._used
        for entry in batch:
            if (row := entry.row) and row["occurred_at"] > used.get(row["key"], ""):
                used[row["key"]] = row["occurred_at"]

    def do(self, head: LedgerHead) -> None:
        """What is due, on a Redis that is ours."""
        now = time.monotonic()
        if now - self._done_at < SECOND:
            return
        self._done_at = now
        if now >= self._patient_until:
            close_lapsed(self._redis, head.mark)
        epochs.assert_all()
        if now - self._tidied_at >= MINUTE:
            self._tidied_at = now
            tally.collect(self._redis)
            self._note_use()

    def stream_is_lost(self, head: LedgerHead) -> bool:
        """Whether the stream is gone or counts from below what is booked; looks once a second."""
        now = time.monotonic()
        if now - self._looked_at < SECOND:
            return False
        self._looked_at = now
        if head.position == "0-0":
            return False
        try:
            newest: Any = self._redis.xinfo_stream(metering.STREAM)["last-generated-id"]
        except redis.ResponseError:
            return True
        return metering.place(newest) < metering.place(head.position)

    def _note_use(self) -> None:
        used, self._used = self._used, {}
        for key, text in used.items():
            at = datetime.fromisoformat(text)
            APIKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lt=at), pk=key).update(last_used_at=at)


def close_lapsed(client: redis.Redis, mark: str) -> int:
    """Ends the holds whose gateway is gone, at what was sent; answers how many."""
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    lapsed: list[Any] = client.zrangebyscore(metering.LEASES, "-inf", now, start=0, num=AT_ONCE)
    if not lapsed:
        return 0
    closed = 0
    rows: list[Any] = client.hmget(metering.HOLDS, lapsed)
    for request_id, row in zip(lapsed, rows, strict=True):
        if row is None:
            client.zrem(metering.LEASES, request_id)
            continue
        try:
            event = metering.read_hold(row).event
        except metering.UnreadableEvent as error:
            log.error("The hold of %s is kept in %s: %s", request_id, metering.DEAD_STREAM, error)
            counters.run(client, metering.BURY, metering.bury(request_id))
            continue
        reply = counters.run(client, metering.SETTLE, metering.settle(event, mark, lapsed=row))
        closed += metering.settlement(reply).written == 1
    if closed:
        log.warning("Booked %d calls of a gateway that is gone, as estimated.", closed)
    return closed
