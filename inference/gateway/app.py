"""The gateway: one raw ASGI application for /v1. Knows no Django; whoever mounts it hands it a snapshot loader.

A call reads top to bottom in `_chat`: key, request, admission, guardrails, engine, settlement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import orjson

from inference import protocol
from inference.gateway import upstream
from inference.gateway.admission import Counters
from inference.gateway.call import Blocked, Call, new_id
from inference.gateway.snapshot import Cache, Loader, Snapshot
from inference.protocol import ChatRequest, Refusal
from tenants import keytext

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ATTEMPTS = 4  # admissions of one call: each change of the tenant that falls between costs one
DRAIN_SECONDS = 30.0


class Disconnected(Exception):
    """The client went away before its request was read."""


class Gateway:
    """`load_snapshot(key_id)` may block (it runs in a thread) and answers None for a key that opens nothing."""

    def __init__(self, load_snapshot: Loader, redis_url: str, engine_url: str) -> None:
        self._snapshots = Cache(load_snapshot)
        self._redis_url = redis_url
        self._counters: Counters
        self._upstream = upstream.Upstream(engine_url)
        self._running = 0
        self._idle = asyncio.Event()
        self._draining = False

    async def startup(self) -> None:
        """Opens the pools; call it inside the loop that serves."""
        self._counters = Counters(self._redis_url)
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
        reply = Reply(send, new_id())
        self._running += 1
        try:
            if self._draining:
                raise Refusal(503, "shutting_down", "This gateway is shutting down. Send the call again.", None, 1)
            await self._route(scope, receive, reply)
        except Refusal as refusal:
            await reply.refuse(refusal)
        except Disconnected:
            pass
        except Exception:
            log.exception("%s failed.", reply.request_id)
            message = f"Something broke on our side. Report {reply.request_id} to the operator."
            await reply.refuse(Refusal(500, "internal_error", message))
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _route(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _allow(method, "GET")
            return await self._models(scope, path.removeprefix("/v1/models").strip("/"), reply)
        if path == "/v1/chat/completions":
            _allow(method, "POST")
            return await self._chat(scope, receive, reply)
        raise Refusal(404, "not_found", f"There is no {path} here. Known: /v1/models, /v1/chat/completions.")

    async def _models(self, scope: Scope, name: str, reply: Reply) -> None:
        snapshot = await self._open(scope)
        if not await self._is_current(snapshot):
            snapshot = await self._open(scope, fresh=True)
        cards = [
            {"id": route.name, "object": "model", "created": 0, "owned_by": "paramstack"}
            for route in snapshot.routes.values()
        ]
        if not name:
            return await reply.json(200, {"object": "list", "data": cards})
        for card in cards:
            if card["id"] == name:
                return await reply.json(200, card)
        raise _unknown(name)

    async def _chat(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        await self._open(scope)  # a stranger's body is not read
        request = protocol.parse_chat(await _body(scope, receive))
        call = await self._admit(scope, request, reply.request_id)
        settle = self._counters.settle
        try:
            response = await self._upstream.post(call.choice.target.served, call.guard())
            async with response:
                if request.stream:
                    await self._stream(call, response, receive, reply)
                else:
                    answer = await call.plain(response)
                    await call.settle(settle, "settled")
                    await reply.json(200, answer, call.headers())
        except Blocked as block:
            await call.settle(settle, "blocked", block.rule, free=True)
            raise
        except Refusal as refusal:
            await call.settle(settle, "aborted", refusal.code, free=True)
            raise
        finally:
            await call.settle(settle, "aborted", "interrupted")

    async def _admit(self, scope: Scope, request: ChatRequest, request_id: str) -> Call:
        """The call with its hold taken. A snapshot that is out of date is read again and tried again."""
        snapshot = await self._open(scope)
        for _ in range(ATTEMPTS):
            try:
                call = _plan(request_id, snapshot, request)
            except Refusal:  # by the settings as they are now, or as they were?
                if await self._is_current(snapshot):
                    raise
            else:
                verdict = await self._counters.admit(call.hold, snapshot.limits)
                if not verdict.reason:
                    return call
                if verdict.reason not in ("stale", "unseeded"):
                    raise _over(verdict.reason, verdict.retry_ms)
            snapshot = await self._open(scope, fresh=True)
        raise Refusal(503, "settings_changing", "Your organisation's settings are changing. Try again.", None, 1)

    async def _is_current(self, snapshot: Snapshot) -> bool:
        return await self._counters.epoch(snapshot.tenant) == snapshot.limits.epoch

    async def _open(self, scope: Scope, fresh: bool = False) -> Snapshot:
        """The snapshot of the caller's key; raises Refusal 401, or 503 when the database does not answer."""
        try:
            key_id, secret = keytext.parse(_bearer(scope))
        except keytext.Malformed as error:
            raise Refusal(401, "invalid_api_key", str(error)) from error
        try:
            snapshot = await (self._snapshots.fresh(key_id) if fresh else self._snapshots.get(key_id))
        except Exception as error:
            log.exception("No snapshot of key %s.", key_id)
            raise Refusal(503, "settings_unavailable", "The key cannot be checked now. Try again.", None, 5) from error
        if not snapshot or not snapshot.opens_with(secret):
            message = "This key is unknown, expired, revoked or not made for inference. Create one in the console."
            raise Refusal(401, "invalid_api_key", message)
        return snapshot

    async def _stream(self, call: Call, response: aiohttp.ClientResponse, receive: Receive, reply: Reply) -> None:
        """Relays until the engine is done or the client is gone. The row is written before the last event goes."""
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: response.close())  # wakes a read that waits for the engine
        try:
            await reply.begin_stream(call.headers())
            await call.relay(response, reply.chunk)
            await call.settle(self._counters.settle, "settled")
            await reply.chunk(protocol.DONE, more=False)
        except (*upstream.BROKEN, Refusal, ValueError) as error:
            if gone.done():
                return await call.settle(self._counters.settle, "aborted", "client_disconnected")
            await call.settle(self._counters.settle, "aborted", "engine_failed", free=True)
            failure = upstream.EngineUnavailable(call.choice.target.served, type(error).__name__)
            await reply.chunk(protocol.frame(failure.body(reply.request_id)), more=False)
        finally:
            gone.cancel()


class Reply:
    """What goes back: every response names its request id, which is the ledger's."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id, self.begun = send, request_id, False

    async def json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        await self._begin(status, "application/json", headers or {})
        await self.chunk(body if isinstance(body, bytes) else orjson.dumps(body), more=False)

    async def refuse(self, refusal: Refusal) -> None:
        if not self.begun:
            headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else {}
            await self.json(refusal.status, refusal.body(self.request_id), headers)

    async def begin_stream(self, headers: dict[str, str]) -> None:
        await self._begin(200, "text/event-stream", headers | {"cache-control": "no-store", "x-accel-buffering": "no"})

    async def chunk(self, data: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _begin(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.begun = True
        headers = {"content-type": kind, "x-request-id": self.request_id} | headers
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})


def _plan(request_id: str, snapshot: Snapshot, request: ChatRequest) -> Call:
    """Where the call goes and what it can cost at most; raises Refusal."""
    route = snapshot.routes.get(request.model)
    if route is None:
        raise _unknown(request.model)
    if request.max_tokens and request.max_tokens > snapshot.max_tokens:
        message = f"max_tokens is at most {snapshot.max_tokens}."
        raise Refusal(400, "invalid_request", message, "max_tokens")
    choice = route.choose(request.user or snapshot.key_id)
    if choice is None:
        message = f"{request.model} has no price yet. The operator adds {route.unpriced} to the price book."
        raise Refusal(503, "model_not_priced", message, "model")
    return Call(request_id, snapshot, request, choice)


def _unknown(model: str) -> Refusal:
    message = f"The model {model[:80]!r} does not exist for this key. GET /v1/models lists those that do."
    return Refusal(404, "model_not_found", message, "model")


def _over(reason: str, retry_ms: int) -> Refusal:
    if reason == "budget":
        message = "This month's budget does not cover the call. An owner or the operator raises it in the console."
        return Refusal(402, "budget_exceeded", message)
    seconds = max(1, -(-retry_ms // 1000))
    message = f"Too many requests this minute. Try again in {seconds} s."
    return Refusal(429, "rate_limit_exceeded", message, None, seconds)


def _allow(method: str, expected: str) -> None:
    if method != expected:
        raise Refusal(405, "method_not_allowed", f"Use {expected} here.")


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            return text.strip() if kind.lower() == "bearer" else ""
    return ""


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The request's body; raises Refusal 413 above protocol.MAX_BODY, Disconnected when the client leaves."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > protocol.MAX_BODY:
            raise Refusal(413, "body_too_large", f"The body may have {protocol.MAX_BODY} bytes at most.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
