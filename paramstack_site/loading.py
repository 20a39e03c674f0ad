"""The gateway as this installation runs it: the database behind its snapshots, Redis, the secret of its refusals."""

from django.conf import settings
from django.db import close_old_connections

from inference import snapshots
from inference.gateway.app import Gateway
from inference.gateway.snapshot import TenantSnapshot
from tenants import refusals


def load_snapshot(key_id: str) -> TenantSnapshot | None:
    """Runs in a thread of the gateway's; gives the connection back, or it would outlive its server."""
    close_old_connections()
    try:
        return snapshots.load(key_id)
    finally:
        close_old_connections()


def gateway() -> Gateway:
    return Gateway(load_snapshot, settings.REDIS_URL, refusals.secret())
