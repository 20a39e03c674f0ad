"""Proves that rows, roll-ups and counters are one sum, under load and at any moment.

Counters: one step in Redis reads them all and puts what it read into the usage stream; the ledger's writer compares
when it meets it (`comparison`). Rows and roll-ups: one query a roll-up, which is one snapshot (`sums`).
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from tenants import counters, ledger, metering
from tenants.ledger import comparison
from tenants.ledger.sums import differences
from tenants.models import LedgerProof

__all__ = ["NoProof", "Taken", "audit", "differences", "latest", "prove", "take", "wait"]

log = logging.getLogger(__name__)
POLL_SECONDS = 0.03


class NoProof(Exception):
    """The proof could not be made. That says nothing about the sums."""


@dataclass(frozen=True)
class Taken:
    """What was read of the counters, and the nonce under which the ledger books the comparison."""

    nonce: str
    entry: str
    reading: comparison.Reading


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


def audit() -> bool:
    """One proof of everything, for the schedule: what differs is an error in the log. No proof is a warning."""
    import redis

    try:
        made = prove()
    except (NoProof, redis.RedisError) as error:
        log.warning("No proof was made. %s", error)
        return False
    found = differences()
    for finding in [*made.findings, *found]:
        log.error("The ledger does not hold: %s", finding)
    return made.holds and not found


def latest() -> LedgerProof | None:
    """The last comparison, which the proof every ten minutes keeps fresh."""
    return LedgerProof.objects.first()
