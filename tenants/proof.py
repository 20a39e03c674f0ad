"""Proves that rows, roll-ups and counters are one sum, under load and at any moment.

Counters: one step in Redis reads them all and puts what it read into the usage stream; the ledger's writer compares
when it meets it (`comparison`). Rows and roll-ups: one query a roll-up, which is one snapshot.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from tenants import comparison, counters, ledger, metering
from tenants.models import LedgerProof

POLL_SECONDS = 0.03


class NoProof(Exception):
    """The proof could not be made. That says nothing about the sums."""


@dataclass(frozen=True)
class Taken:
    """What was read of the counters, and the nonce under which the ledger books the comparison."""

    nonce: str
    entry: str
    reading: comparison.Reading


@dataclass(frozen=True)
class Total:
    """A tenant's month (YYYYMM), summed from its rows and from its roll-up."""

    tenant: str
    month: str
    rows: int
    rows_nano: int
    rolled: int
    rolled_nano: int


@dataclass(frozen=True)
class Difference:
    """A roll-up that is not the sum of its rows. `key` names it, `ledger` and `rolled` are what both say of `what`."""

    table: str
    key: tuple[str, ...]
    what: str
    rows: int
    rolled: int


def prove(timeout_s: float = 30) -> LedgerProof:
    """Compares the counters with the ledger; raises NoProof if no writer comes to it in time, redis.RedisError."""
    return wait(take(), timeout_s)


def take() -> Taken:
    """Reads the counters in one step and asks the ledger's writer to compare. Raises NoProof, redis.RedisError."""
    nonce = secrets.token_hex(16)
    reply: Any = counters.run(counters.connect(), metering.PROOF, metering.proof(ledger.mark(), nonce))
    if not reply:
        raise NoProof("The counters are not vouched for: the ledger writer has not rebuilt them yet. Is it running?")
    entry, text = reply
    return Taken(nonce, entry, comparison.Reading.of(text))


def wait(taken: Taken, timeout_s: float = 30) -> LedgerProof:
    """The comparison, once the writer has made it; raises NoProof after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := LedgerProof.objects.filter(nonce=taken.nonce).first():
            return found
        time.sleep(POLL_SECONDS)
    raise NoProof(f"The ledger writer has not come to the proof within {timeout_s:.0f} s. Is it running?")


def latest() -> LedgerProof | None:
    """The last comparison, which the proof every ten minutes keeps fresh."""
    return LedgerProof.objects.first()
