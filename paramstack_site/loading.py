"""The gateway as this installation runs it: the database behind its snapshots, Redis, the secret of its refusals."""

import asyncio

from django.conf import settings
from django.db import DatabaseError, close_old_connections

from inference import discrepancies, opinions, snapshots
from inference.gateway import reply, telemetry
from inference.gateway.app import Gateway
from inference.gateway.reply import Scope, Send
from inference.gateway.snapshot import TenantSnapshot
from inference.protocol.feedback import Feedback
from tenants import refusals


def load_snapshot(key_id: str) -> TenantSnapshot | None:
    """Runs in a thread of the gateway's; gives the connection back, or it would outlive its server."""
    close_old_connections()
    try:
        return snapshots.load(key_id)
    finally:
        close_old_connections()


def keep_feedback(tenant: str, key: str, told: Feedback, ours: bool) -> bool:
    """Runs in a thread too."""
    close_old_connections()
    try:
        return opinions.keep(tenant, key, told, ours)
    finally:
        close_old_connections()


def gateway() -> Gateway:
    return Gateway(
        load_snapshot, settings.REDIS_URL, refusals.secret(), keep_feedback, settings.CALL_LOG, settings.CALL_SPANS
    )


def _reconciled() -> bytes:
    """Runs in a thread too. A database that is away is said by others."""
    close_old_connections()
    try:
        return discrepancies.exposition()
    except DatabaseError:
        return b""
    finally:
        close_old_connections()


async def metrics(scope: Scope, send: Send) -> None:
    """Prometheus's format, for whoever asks from this machine or its private network; nobody else learns of it."""
    if telemetry.is_inside(scope):
        body, kind = telemetry.exposition()
        await reply.plain(send, 200, body + await asyncio.to_thread(_reconciled), kind)
    else:
        await reply.plain(send, 404, b"Not Found")
