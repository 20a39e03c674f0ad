"""Moves the usage stream into the ledger: `manage.py ledger_writer` runs this for as long as it lives.

One writer at a time: it holds a lease in the ledger's head and moves the head by compare-and-set with its rows, so that
a second one, or one that slept, changes nothing. It reads by position; what Redis and database disagree about after a
crash is in the head until Redis has confirmed it. A Redis that lost something is rebuilt (`rebuild`) before it is read.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis
from django.db import DatabaseError, close_old_connections, connection
from django.utils import timezone

from tenants import counters, ledger, metering
from tenants.ledger import chores, entries, outcomes, rebuild
from tenants.models import LedgerHead

log = logging.getLogger(__name__)
BATCH = 2_000
PAUSE_SECONDS = 0.02  # behind a full batch: SQLite's other writers get their turn
# Behind any other: a transaction and its signature cost as much as some hundred rows, and a receipt may take a second.
COLLECT_SECONDS = 0.4
BLOCK_MS = 200
LEASE_SECONDS = 4.0  # a writer that has not renewed for so long is taken for dead
RENEW_SECONDS = 1.0
BACK_OFF_SECONDS = 0.5
STAND_BY_SECONDS = 0.25
GRACE_SECONDS = 3.0  # gateways look at Redis every second or two, and bring back what it lost of their calls
PATIENT_SECONDS = 5.0  # after Redis was away, or at the start: gateways renew within two seconds what lapsed meanwhile
GATHER_SECONDS = 0.1  # between looks whether that time is over
PATIENCE_SECONDS = 30.0  # of drain(), for a writer that holds the lease and does not move


class Stuck(Exception):
    """Another writer holds the lease and does not book what is there, or this Redis is another installation's."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What Redis shows in one step: its state, and the entries behind a position."""

    mark: str
    sequence: int
    booked: str
    entries: list[tuple[str, dict[str, str]]]


class Writer:
    """The one writer of the ledger, or one that stands by. `name` must be its own."""

    def __init__(self, name: str) -> None:
        self._name, self._stopping = name, False
        self._redis = counters.connect()
        self._names = outcomes.Names()
        self._chores = chores.Chores(self._redis)
        self._leads = False
        self._lost: tuple[float, str] | None = None  # since when, and with which mark, Redis is not the ledger's

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Turns until `stop`; survives a Redis and a database that go and come back."""
        self._chores.wait(PATIENT_SECONDS)
        while not self._stopping:
            try:
                full = self.turn(BLOCK_MS) >= BATCH
                time.sleep(PAUSE_SECONDS if full else COLLECT_SECONDS if self._leads else STAND_BY_SECONDS)
            except rebuild.Foreign as foreign:
                log.error("%s", foreign)
                time.sleep(LEASE_SECONDS)
            except (redis.RedisError, DatabaseError, ledger.Fenced) as error:
                log.warning("The ledger writer waits: %s", error)
                self._chores.wait(PATIENT_SECONDS)
                if not connection.in_atomic_block:
                    close_old_connections()
                time.sleep(BACK_OFF_SECONDS)
        self._release()

    def turn(self, block_ms: int | None = None) -> int:
        """One batch, with a rebuild before it or chores beside it if they are due; answers how many entries it took.

        Waits up to `block_ms` where there is nothing. Raises rebuild.Foreign, ledger.Fenced, and what Redis and the
        database raise when they are away.
        """
        head = self._lead()
        if head is None:
            self._lost = None
            return 0
        if head.unconfirmed:
            self._confirm(head.mark, head.position, head.unconfirmed)
        sight = self._look(head.position)
        if rebuild.due(head, sight.mark, sight.sequence, sight.booked) or self._chores.stream_is_lost(head):
            return self._rebuild(head, sight.mark)
        self._lost = None
        self._chores.do(head)
        if not sight.entries and block_ms:
            self._redis.xread({metering.STREAM: head.position}, count=1, block=block_ms)
        if not sight.entries:
            return 0
        batch = [entries.read(*entry) for entry in sight.entries]
        written = ledger.book(batch, head, sight.sequence, self._names)
        self._confirm(head.mark, written.position, written.unconfirmed)
        self._chores.note(batch)
        return written.taken

    def drain(self) -> int:
        """Everything that is there now, by this writer or the one that holds the lease; answers how many entries.

        Raises Stuck after PATIENCE_SECONDS without the lease, and as `turn` does.
        """
        total, deadline = 0, time.monotonic() + PATIENCE_SECONDS
        while True:
            count = self.turn()
            total += count
            if self._leads and not count and not self._waiting():
                self._release()
                return total
            if not self._leads:
                if not self._waiting():
                    return total
                if time.monotonic() > deadline:
                    raise Stuck(f"{ledger.head().writer} holds the ledger's lease and does not book.")
                time.sleep(0.05)

    def _lead(self) -> LedgerHead | None:
        """The head, if this writer holds the lease, which it renews or takes if nobody does."""
        head, now = ledger.head(), timezone.now()
        mine = head.writer == self._name
        if not mine and head.lease_until and head.lease_until > now:
            self._leads = False
            return None
        if mine and self._leads and head.lease_until and _left(head, now) > LEASE_SECONDS - RENEW_SECONDS:
            return head
        until = now + timedelta(seconds=LEASE_SECONDS)
        here = LedgerHead.objects.filter(pk=head.pk, writer=head.writer, lease_until=head.lease_until)
        self._leads = bool(here.update(writer=self._name, lease_until=until))
        if not self._leads:
            return None
        if not mine:
            log.info("%s keeps the ledger, after %s.", self._name, head.writer or "nobody")
        head.writer, head.lease_until = self._name, until
        return head

    def _release(self) -> None:
        """Lets a writer that stands by take over at once."""
        self._leads = False
        try:
            LedgerHead.objects.filter(writer=self._name).update(lease_until=None)
        except DatabaseError as error:
            log.warning("The lease was not given back and ends by itself: %s", error)

    def _rebuild(self, head: LedgerHead, mark: str) -> int:
        """The rebuild, after a time in which nobody is admitted and gateways send what they know of their calls.

        Without it a call that was open, or settled and not booked, would be in no counter when admission begins again.
        """
        if self._lost is None:
            rebuild.close(self._redis, head, mark)
            self._lost = time.monotonic(), mark
        since, mark = self._lost
        if not rebuild.is_new(head, mark) and time.monotonic() - since < GRACE_SECONDS:
            time.sleep(GATHER_SECONDS)
            return 0
        booked = rebuild.run(self._redis, head, mark, self._names, self._lead)
        self._lost = None
        return booked

    def _look(self, position: str) -> Sight:
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(metering.STATE, "mark", "sequence", "booked")
        pipe.xrange(metering.STREAM, min=f"({position}", count=BATCH)
        (mark, sequence, booked), found = pipe.execute()
        return Sight(mark or "", int(sequence or 0), booked or "", found)

    def _waiting(self) -> bool:
        """Whether Redis still has something that the ledger has not."""
        head = ledger.head()
        sight = self._look(head.position)
        return bool(sight.entries) or rebuild.due(head, sight.mark, sight.sequence, sight.booked)

    def _confirm(self, mark: str, position: str, differences: outcomes.Unconfirmed) -> None:
        told = [(entry, tenant, month, nano, why) for entry, tenant, month, nano, why in differences]
        left = counters.run(self._redis, metering.CONFIRM, metering.confirm(mark, position, told))
        if differences and left >= 0:
            LedgerHead.objects.filter(mark=mark, position=position, writer=self._name).update(unconfirmed=[])


def _left(head: LedgerHead, now: datetime) -> float:
    return (head.lease_until - now).total_seconds() if head.lease_until else 0.0
