"""Answers that go out as they come in, and what ends one before its time: the engine, its client, a lost key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from inference import protocol
from inference.gateway import refusing, reply, upstream
from inference.gateway.cache import Cache
from inference.gateway.call import Call, Settle, Stopped
from inference.gateway.reply import Receive, Reply

log = logging.getLogger(__name__)
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)  # an engine that does not speak the format


class Streams:
    """The streams of this process. At each renewal those end whose caller could not call any more."""

    def __init__(self, snapshots: Cache) -> None:
        self._snapshots = snapshots
        self._calls: set[Call] = set()

    async def relay(
        self,
        call: Call,
        response: upstream.Response,
        headers: dict[str, str],
        receive: Receive,
        answer: Reply,
        settle: Settle,
    ) -> None:
        """Relays until the engine is done or the client is gone. The row is written before the last event goes."""
        gone = asyncio.ensure_future(reply.gone(receive))
        gone.add_done_callback(lambda _: response.close())  # wakes a read that waits for the engine
        call.response = response
        self._calls.add(call)
        try:
            await answer.begin_stream(headers)
            await call.relay(response, answer.chunk)
            await call.settle(settle, "settled")
            await answer.chunk(protocol.DONE, more=False)
        except (*upstream.BROKEN, Stopped, upstream.EngineUnavailable, *UNREADABLE) as error:
            if gone.done():
                await call.settle(settle, "aborted", "client_disconnected")
            elif call.stopped:
                await call.settle(settle, "aborted", call.stopped)
                await answer.end_stream(refusing.stopped(call.stopped))
            else:
                await call.settle(settle, "aborted", "engine_failed", free=True)
                await answer.end_stream(upstream.EngineUnavailable(call.target.served, type(error).__name__))
        finally:
            self._calls.discard(call)
            gone.cancel()

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
