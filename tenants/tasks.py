"""Periodic work of the tenants. Messages carry ids; what is due stands in the rows: one may come twice or never."""

from __future__ import annotations

from celery import shared_task

from tenants.ledger import proof
from tenants.notices import alerts
from tenants.rest import idempotency


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def deliver_alerts() -> int:
    """Asks for an attempt at each alert that is due; answers how many."""
    due = alerts.due()
    for alert_id in due:
        deliver_alert.apply_async((alert_id,), expires=30)
    return len(due)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def deliver_alert(alert_id: int) -> bool:
    return alerts.deliver(alert_id)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def forget_replies() -> int:
    """Deletes what POSTs with an Idempotency-Key answered more than a day ago; answers how many."""
    return idempotency.forget()


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def prove_ledger() -> bool:
    """Compares the counters with the ledger, and its rows with the roll-ups; an error in the log if they differ."""
    return proof.audit()
