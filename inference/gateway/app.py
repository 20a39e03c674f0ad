"""The gateway: one raw ASGI application for /v1. Knows no Django; whoever mounts it hands it a snapshot loader.

A call reads top to bottom in `_chat`: key, request, admission, guardrails, engine, settlement.
"""

from __future__ import annotations

import asyncio
import logging
import time

from redis.exceptions import RedisError

from inference import protocol
from inference.gateway import refusing, reply, upstream
from inference.gateway.admission import Counters
from inference.gateway.cache import Cache, TooManyUnknown
from inference.gateway.call import Blocked, Call, new_id
from inference.gateway.pipeline import Unavailable
from inference.gateway.reply import Receive, Reply, Scope, Send
from inference.gateway.snapshot import Key, Loader, TenantSnapshot
from inference.gateway.streams import Streams
from inference.protocol import ChatRequest, Refusal
from tenants import decisions, keytext
from tenants.metering import Verdict

log = logging.getLogger(__name__)
ATTEMPTS = 4  # admissions of one call: each change of the tenant that falls between costs one
DRAIN_SECONDS = 30.0
MARK_SECONDS = 0.2  # between looks at the ledger for a new mark while Redis has none


class Gateway:
    """`load_snapshot(key_id)` may block (it runs in a thread) and answers None for a key that opens nothing.

    `decision_secret` signs what refusals say of themselves.
    """

    def __init__(self, load_snapshot: Loader, redis_url: str, engine_url: str, decision_secret: bytes) -> None:
        self._snapshots = Cache(load_snapshot, lambda snapshot: self._counters.adopt(snapshot.mark, snapshot.sequence))
        self._redis_url, self._secret = redis_url, decision_secret
        self._counters: Counters
        self._upstream = upstream.Upstream(engine_url)
        self._streams = Streams(self._snapshots)
        self._unmarked_until = 0.0
        self._running = 0
        self._idle = asyncio.Event()
        self._draining = False

    async def startup(self) -> None:
        """Opens the pools; call it inside the loop that serves."""
        self._counters = Counters(self._redis_url, self._streams.renewed)
        self._counters.start()
        await self._upstream.start()
        self._draining = False

    async def shutdown(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Refuses new calls, waits for the running ones, closes the pools."""
        self._draining = True
        self._idle.clear()
        if self._running:
            try:
                await asyncio.wait_for(self._idle.wait(), drain_seconds)
            except TimeoutError:
                log.warning("%d calls still ran when the gateway stopped.", self._running)
        await self._upstream.close()
        await self._counters.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Reply(send, new_id())
        self._running += 1
        try:
            if self._draining:
                raise Refusal(503, "shutting_down", "This gateway is shutting down. Send the call again.", None, 1)
            await self._route(scope, receive, answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except reply.Disconnected:
            pass
        except Exception:
            log.exception("%s failed.", answer.request_id)
            message = f"Something broke on our side. Report {answer.request_id} to the operator."
            await answer.refuse(Refusal(500, "internal_error", message))
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _route(self, scope: Scope, receive: Receive, answer: Reply) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/v1/chat/completions":
            _allow(method, "POST")
            return await self._chat(scope, receive, answer)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _allow(method, "GET")
            return await self._models(scope, path.removeprefix("/v1/models").strip("/"), answer)
        raise Refusal(404, "not_found", f"There is no {path} here. Known: /v1/models, /v1/chat/completions.")

    async def _models(self, scope: Scope, name: str, answer: Reply) -> None:
        snapshot, key = await self._open(scope)
        if not await self._now_if_current(snapshot, key):
            snapshot, key = await self._open(scope, snapshot)
        cards = [
            {"id": route.name, "object": "model", "created": 0, "owned_by": "paramstack"}
            for route in snapshot.routes.values()
            if key.allows(route.name)
        ]
        if not name:
            return await answer.json(200, {"object": "list", "data": cards})
        for card in cards:
            if card["id"] == name:
                return await answer.json(200, card)
        raise refusing.unknown_model(name)

    async def _chat(self, scope: Scope, receive: Receive, answer: Reply) -> None:
        snapshot, key = await self._open(scope)  # a stranger's body is not read
        request = protocol.parse_chat(await reply.body(receive))
        call, verdict = await self._admit(scope, snapshot, key, request, answer.request_id)
        settle, headers = self._counters.settle, refusing.windows(verdict) | call.headers()
        try:
            response = await self._upstream.post(call.target.served, call.guard())
            async with response:
                if request.stream:
                    await self._streams.relay(call, response, headers, receive, answer, settle)
                else:
                    body = await call.plain(response)
                    await call.settle(settle, "settled")
                    await answer.json(200, body, headers)
        except Blocked as block:
            await call.settle(settle, "blocked", block.rule, free=True)
            block.also = headers
            raise
        except Refusal as refusal:
            await call.settle(settle, "aborted", refusal.code, free=True)
            refusal.also = headers
            raise
        finally:
            await call.settle(settle, "aborted", "interrupted")

    async def _admit(
        self, scope: Scope, snapshot: TenantSnapshot, key: Key, request: ChatRequest, request_id: str
    ) -> tuple[Call, Verdict]:
        """The call with its hold taken. A snapshot that is out of date is read again and tried again."""
        for _ in range(ATTEMPTS):
            unmarked = False
            try:
                call = _plan(request_id, snapshot, key, request)
            except Refusal as refusal:  # by the settings as they are now, or as they were?
                if now_us := await self._now_if_current(snapshot, key):
                    raise self._decided(refusal, snapshot, key, request.model, now_us) from None
            else:
                verdict = await self._counters.admit(call)
                if not verdict.reason:
                    call.at_us = verdict.at_us
                    return call, verdict
                self._check(verdict, call)
                unmarked = verdict.reason == "unmarked"
            old = snapshot
            snapshot, key = await self._open(scope, old)
            if unmarked and snapshot.mark == old.mark:  # not rebuilt yet
                self._unmarked_until = time.monotonic() + MARK_SECONDS
                raise Unavailable
        raise Refusal(503, "settings_changing", "Your organisation's settings are changing. Try again.", None, 1)

    def _check(self, verdict: Verdict, call: Call) -> None:
        """Returns where reading the snapshot again may help; raises Refusal."""
        if verdict.reason == "refused":
            most = (call.tokens, call.hold_nano, call.max_tokens, call.request.n)
            decision = decisions.refused(verdict, call.event, *most)
            raise refusing.over(verdict, decisions.issue(self._secret, decision), decision.code)
        if verdict.reason == "backlog":
            raise refusing.backlog()
        if verdict.reason == "unmarked" and time.monotonic() < self._unmarked_until:
            raise Unavailable

    def _decided(self, refusal: Refusal, snapshot: TenantSnapshot, key: Key, model: str, now_us: int) -> Refusal:
        if isinstance(refusal, refusing.NotAllowed):
            return refusal.decided(self._secret, snapshot.tenant, key.id, model, now_us)
        return refusal

    async def _now_if_current(self, snapshot: TenantSnapshot, key: Key) -> int:
        """Now by Redis's clock (us) if the snapshot is what holds now, else 0; raises Unavailable."""
        now_us, epoch = await self._counters.moment(snapshot.tenant)
        return now_us if epoch == snapshot.epoch and now_us < key.terms.until_us else 0

    async def _open(self, scope: Scope, old: TenantSnapshot | None = None) -> tuple[TenantSnapshot, Key]:
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
                return await self._open(scope, snapshot)  # it may be good again
            raise refusing.no_key(key.ended)
        return snapshot, key

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


def _plan(request_id: str, snapshot: TenantSnapshot, key: Key, request: ChatRequest) -> Call:
    """Where the call goes and what it can cost at most; raises Refusal."""
    if not key.allows(request.model):
        raise refusing.NotAllowed(request.model)
    route = snapshot.routes.get(request.model)
    if route is None:
        raise refusing.unknown_model(request.model)
    choice = route.choose(request.user or key.id)
    if choice is None:
        message = f"{request.model} has no price yet. The operator adds {route.unpriced} to the price book."
        raise Refusal(503, "model_not_priced", message, "model")
    context = choice.target.context_tokens
    if context and (request.max_tokens or 0) > context:
        message = f"max_tokens is at most {context}, the context of {request.model}."
        raise Refusal(400, "invalid_request", message, "max_tokens")
    return Call(request_id, snapshot, key, request, choice)


def _allow(method: str, expected: str) -> None:
    if method != expected:
        raise Refusal(405, "method_not_allowed", f"Use {expected} here.")
