"""Feedback on answers: kept for the tenant whose call it was."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from inference.gateway import reply
from inference.gateway.admission import Counters
from inference.gateway.door import Door
from inference.gateway.reply import Receive, Reply, Scope
from inference.protocol import Refusal, feedback

log = logging.getLogger(__name__)
AT_ONCE = 8  # writes of this process; others wait
# (tenant, key id, feedback, whether the call is known to be the tenant's) -> whether it was kept; may block
Keep = Callable[[str, str, feedback.Feedback, bool], bool]


class FeedbackDesk:
    def __init__(self, door: Door, counters: Counters, keep: Keep) -> None:
        self._door, self._counters, self._keep = door, counters, keep
        self._writing = asyncio.Semaphore(AT_ONCE)

    async def take(self, scope: Scope, receive: Receive, answer: Reply) -> None:
        """Raises Refusal 404 for a call that is not the tenant's; the last word on a call replaces the one before."""
        snapshot, key = await self._door.open_now(scope)
        told = feedback.parse(await reply.body(scope, receive))
        ours = self._counters.knows(told.request_id, snapshot.tenant)  # not booked yet
        try:
            async with self._writing:
                kept = await asyncio.to_thread(self._keep, snapshot.tenant, key.id, told, ours)
        except Exception as error:  # the caller's to send again, whatever broke
            log.exception("No feedback was kept.")
            raise Refusal(503, "feedback_unavailable", "Feedback cannot be kept now. Try again.", None, 5) from error
        if not kept:
            message = "There is no such call of your organisation. One that was just answered is known in a second."
            raise Refusal(404, "call_not_found", message, "request_id", 2)
        await answer.json(200, {"object": "feedback", "request_id": told.request_id})
