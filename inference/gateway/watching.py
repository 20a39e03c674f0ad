"""Calls under way, and what ends one before its time: its client, a lost key, a lost hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from inference.gateway import reply
from inference.gateway.background import Background
from inference.gateway.cache import Cache
from inference.gateway.call import Call
from inference.gateway.reply import Receive

log = logging.getLogger(__name__)
PATIENCE = 0.15  # seconds; a call is half as old again on average before anybody listens for its client


class Watch:
    """The calls of this process. At each renewal those end whose caller could not call any more."""

    def __init__(self, snapshots: Cache) -> None:
        self._snapshots = snapshots
        self._calls: dict[Call, Receive] = {}
        self._listening: dict[Call, asyncio.Task[None]] = {}
        self._seen: set[Call] = set()  # at the last sweep
        self._sweeping = Background(self._sweep, lambda: PATIENCE)

    def start(self) -> None:
        self._sweeping.start()

    async def close(self) -> None:
        await self._sweeping.close()

    def begin(self, call: Call, receive: Receive) -> None:
        """From now on the call ends when its client goes, or may not go on. `end` follows in any case."""
        self._calls[call] = receive

    def end(self, call: Call) -> None:
        del self._calls[call]
        if listening := self._listening.pop(call, None):
            listening.cancel()

    async def _sweep(self) -> None:
        """Begins to listen for the clients of calls that were here the last time."""
        for call, receive in self._calls.items():
            if call in self._seen and call not in self._listening:
                self._listening[call] = asyncio.create_task(_hear(call, receive))
        self._seen = set(self._calls)

    async def renewed(self, now_us: int, epochs: Mapping[str, int]) -> None:
        """Told at each renewal what time it is by Redis's clock and which epochs the tenants of open calls have."""
        for call in list(self._calls):
            epoch = epochs.get(call.event.tenant, 0)
            try:
                reason = "key_expired" if now_us >= call.key.ends_us else await self._why_not(call, epoch)
            except Exception:
                log.exception("Whether %s may go on is asked again at the next renewal.", call.event.request_id)
                continue
            if reason:
                call.stop(reason)

    async def _why_not(self, call: Call, epoch: int) -> str:
        """Why the caller may not go on, as of `epoch`; empty if it may. Raises what the loader raises."""
        old, key_id = call.current, call.key.id
        if old.epoch >= epoch:
            return ""
        known = self._snapshots.known(key_id)
        found = await self._snapshots.newer(key_id, known if known and known.epoch < epoch else old)
        key = found.keys.get(key_id) if found else None
        if not found or not key:
            return "key_revoked"
        call.current, call.key = found, key
        return f"key_{key.ended}" if key.ended else "" if key.allows(call.event.model) else "model_not_allowed"


async def _hear(call: Call, receive: Receive) -> None:
    await reply.gone(receive)
    call.leave()
