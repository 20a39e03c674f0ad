"""Periodic work of serving."""

from __future__ import annotations

from celery import shared_task

from inference import discrepancies, reconciliation


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def reconcile_engines() -> int:
    """Compares the readings of before with the ledger, tells the operators what differs, reads again; how many hold."""
    compared = reconciliation.compare()
    discrepancies.tell()
    reconciliation.read()
    reconciliation.forget()
    return sum(bool(reading.holds) for reading in compared)
