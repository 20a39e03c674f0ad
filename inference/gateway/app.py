"""The gateway: one raw ASGI application for /v1. Knows no Django; whoever mounts it hands it a snapshot loader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from inference import protocol
from inference.gateway import cycle, reply
from inference.gateway.admission import Counters
from inference.gateway.answering import Answering
from inference.gateway.cache import Cache
from inference.gateway.call import new_id
from inference.gateway.catalogue import Catalogue
from inference.gateway.door import Door
from inference.gateway.feedback import FeedbackDesk, Keep
from inference.gateway.fleet import Fleet
from inference.gateway.reply import Receive, Reply, Scope, Send
from inference.gateway.snapshot import Loader
from inference.gateway.telemetry import Telemetry
from inference.gateway.watching import Watch
from inference.protocol import Refusal

if TYPE_CHECKING:
    from inference.gateway.tracing import Tracing

log = logging.getLogger(__name__)
DRAIN_SECONDS = 30.0
MODELS, FEEDBACK = "/v1/models", "/v1/feedback"
NOTHING: dict[str, Any] = {}
KNOWN = (*protocol.PARSERS, MODELS, FEEDBACK)


class Gateway:
    """`load_snapshot(key_id)` may block (it runs in a thread) and answers None for a key that opens nothing.

    `decision_secret` signs what refusals say of themselves; `keep_feedback` may block too, without it there is none;
    `log` writes a line of JSON for each call to stderr; `trace` sends a span of each where OTEL_* variables say.
    """

    def __init__(
        self,
        load_snapshot: Loader,
        redis_url: str,
        decision_secret: bytes,
        keep_feedback: Keep | None = None,
        log: bool = False,
        trace: bool = False,
    ) -> None:
        self._snapshots = Cache(load_snapshot, lambda snapshot: self._counters.adopt(snapshot.mark, snapshot.sequence))
        self._watch = Watch(self._snapshots)
        self._counters = Counters(redis_url, self._watch.renewed)
        self._fleet, self._telemetry = Fleet(), Telemetry(log=log)
        door = Door(self._snapshots, self._counters)
        parts = door, self._counters, self._fleet, self._watch, self._telemetry, decision_secret
        self._tracing: Tracing | None = None
        if trace:
            from inference.gateway import tracing

            self._tracing = tracing.Tracing()
            self._answering: Answering = tracing.TracedAnswering(self._tracing, *parts)
        else:
            self._answering = Answering(*parts)
        self._catalogue = Catalogue(door)
        self._feedback = FeedbackDesk(door, self._counters, keep_feedback) if keep_feedback else None
        self._idle = asyncio.Event()
        self._draining = False

    async def startup(self) -> None:
        """Call it inside the loop that serves."""
        self._counters.start()
        self._fleet.start()
        self._watch.start()
        self._telemetry.start()
        self._draining = False

    async def shutdown(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Refuses new calls, waits for the running ones, closes the pools."""
        self._draining = True
        self._idle.clear()
        if self._telemetry.under_way:
            try:
                await asyncio.wait_for(self._idle.wait(), drain_seconds)
            except TimeoutError:
                log.warning("%d calls still ran when the gateway stopped.", self._telemetry.under_way)
        await self._watch.close()
        await self._fleet.close()
        await self._counters.close()
        await self._telemetry.close()
        if self._tracing:
            await self._tracing.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Reply(send, new_id(), scope.get("extensions", NOTHING).get(cycle.RESPOND))
        self._telemetry.under_way += 1
        try:
            if self._draining:
                raise Refusal(503, "shutting_down", "This gateway is shutting down. Send the call again.", None, 1)
            await self._route(scope, receive, answer)
        except Refusal as refusal:
            self._telemetry.refused(refusal.code)
            await answer.refuse(refusal)
        except reply.Disconnected:
            pass
        except Exception:
            log.exception("%s failed.", answer.request_id)
            message = f"Something broke on our side. Report {answer.request_id} to the operator."
            await answer.refuse(Refusal(500, "internal_error", message))
        finally:
            self._telemetry.under_way -= 1
            if not self._telemetry.under_way:
                self._idle.set()

    def _route(self, scope: Scope, receive: Receive, answer: Reply) -> Awaitable[None]:
        method, path = scope["method"], scope["path"]
        if path in protocol.PARSERS:
            _allow(method, "POST")
            return self._answering.answer(scope, receive, answer)
        if path == MODELS or path.startswith(f"{MODELS}/"):
            _allow(method, "GET")
            return self._catalogue.models(scope, path.removeprefix(MODELS).strip("/"), answer)
        if path == FEEDBACK and self._feedback:
            _allow(method, "POST")
            return self._feedback.take(scope, receive, answer)
        raise Refusal(404, "not_found", f"There is no {path[:80]} here. Known: {', '.join(KNOWN)}.")


def _allow(method: str, expected: str) -> None:
    if method != expected:
        raise Refusal(405, "method_not_allowed", f"Use {expected} here.")
