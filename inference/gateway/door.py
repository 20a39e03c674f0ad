"""Who is calling: the key of a request, its tenant's snapshot, and whether both are what holds now."""

from __future__ import annotations

import logging
import time

from redis.exceptions import RedisError

from inference.gateway import refusing, reply
from inference.gateway.admission import Counters
from inference.gateway.cache import Cache, TooManyUnknown
from inference.gateway.pipeline import Unavailable
from inference.gateway.reply import Scope
from inference.gateway.snapshot import Key, TenantSnapshot
from inference.protocol import Refusal
from tenants import keytext

log = logging.getLogger(__name__)
DOUBT_SECONDS = 1.0


class Door:
    def __init__(self, snapshots: Cache, counters: Counters) -> None:
        self._snapshots, self._counters = snapshots, counters
        self._doubted: dict[str, float] = {}  # tenant -> when it was read again

    async def open(self, scope: Scope, old: TenantSnapshot | None = None) -> tuple[TenantSnapshot, Key]:
        """The caller's key and its tenant, another reading than `old`; raises Refusal 401, 429 or 503."""
        try:
            key_id, secret = keytext.parse(reply.bearer(scope))
        except keytext.Malformed as error:
            raise Refusal(401, "invalid_api_key", str(error)) from error
        snapshot = None if old else self._snapshots.known(key_id)
        snapshot = snapshot or await self._read(key_id, scope, old)
        key = snapshot.keys.get(key_id) if snapshot else None
        if not snapshot or not key or not key.opens_with(secret):
            raise refusing.no_key()
        if key.ended:
            if not old and (await self._counters.moment(snapshot.tenant))[1] != snapshot.epoch:
                return await self.open(scope, snapshot)  # it may be good again
            raise refusing.no_key(key.ended)
        return snapshot, key

    async def open_now(self, scope: Scope) -> tuple[TenantSnapshot, Key]:
        """As `open`, and what it answers holds now: for what no admission looks at."""
        snapshot, key = await self.open(scope)
        if not await self.now_if_current(snapshot, key):
            snapshot, key = await self.open(scope, snapshot)
        return snapshot, key

    async def doubt(self, snapshot: TenantSnapshot, key: Key) -> None:
        """Reads the tenant again although no epoch moved, once a second at most; fails in silence: the call has."""
        now = time.monotonic()
        self._doubted = {tenant: at for tenant, at in self._doubted.items() if now - at < DOUBT_SECONDS}
        if snapshot.tenant in self._doubted:
            return
        self._doubted[snapshot.tenant] = now
        try:
            await self._snapshots.newer(key.id, snapshot)
        except Exception:
            log.exception("No snapshot of key %s.", key.id)

    async def now_if_current(self, snapshot: TenantSnapshot, key: Key) -> int:
        """Now by Redis's clock (us) if the snapshot is what holds now, else 0; raises Unavailable."""
        now_us, epoch = await self._counters.moment(snapshot.tenant)
        return now_us if epoch == snapshot.epoch and now_us < key.terms.until_us else 0

    async def _read(self, key_id: str, scope: Scope, old: TenantSnapshot | None) -> TenantSnapshot | None:
        try:
            if old:
                return await self._snapshots.newer(key_id, old)
            return await self._snapshots.find(key_id, reply.address(scope))
        except TooManyUnknown as error:
            raise refusing.too_many_unknown(error.wait) from error
        except RedisError as error:
            raise Unavailable from error
        except Exception as error:
            log.exception("No snapshot of key %s.", key_id)
            raise Refusal(503, "settings_unavailable", "The key cannot be checked now. Try again.", None, 5) from error
