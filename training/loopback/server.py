"""The ASGI application and its start: in a thread for tests, as a process for benchmarks (`__main__`).

Beside the API: `GET /_bill` (`?lines=1` adds every line), `GET` and `POST /_options` (JSON, what changes).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from training.loopback import asking, bill, catalogue, openai, streaming, tokens, wire
from training.loopback.batches import MOST_BYTES, Batches
from training.loopback.engine import Engine
from training.loopback.options import KEY, Options, changed
from training.loopback.wire import Refused, Reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
REMEMBERED = 1_000  # requests
BATCHES = "/v1/messages/batches"


class Request:
    """What an endpoint is given."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.method, self.path, self.body = scope["method"], scope["path"], body
        self.headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.query = dict(parse_qsl(scope["query_string"].decode()))
        self.id = wire.new_id("req")
        self.openai = self.path == "/v1/chat/completions" or "anthropic-version" not in self.headers

    @property
    def address(self) -> str:
        return f"http://{self.headers.get('host', 'localhost')}"


class Loopback:
    """The application. `script` is used up first, one reply for each POST to /v1/messages; then the world answers."""

    def __init__(self, options: Options | None = None) -> None:
        self.engine = Engine(options or Options())
        self.batches = Batches(self.engine)
        self.script: deque[Reply] = deque()
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)

    @property
    def bill(self) -> bill.Bill:
        return self.engine.bill

    def change(self, **values: Any) -> None:
        """Other limits and faults from now on. Raises ValueError."""
        self.engine.set(changed(self.engine.options, values))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        most = MOST_BYTES if scope["path"] == BATCHES else self.engine.options.max_body
        body = await _read(receive, most)
        request = Request(scope, body or b"")
        await _send(send, await self.reply(request, too_large=body is None), request.id)

    async def reply(self, request: Request, too_large: bool = False) -> Reply:
        self.requests.append(request)
        if request.path.startswith("/_"):
            return self.own(request)
        try:
            if too_large:
                raise Refused(413, "request_too_large", "Request exceeds the maximum size")
            self.enter(request)
            reply = await self.answer(request)
        except Refused as refused:
            self.bill.refused[f"{refused.status} {refused.kind}"] += 1
            headers = self.engine.gate.headers()
            return (
                openai.error_reply(refused, _plain(headers))
                if request.openai
                else wire.error_reply(refused, request.id, headers)
            )
        return reply

    def own(self, request: Request) -> Reply:
        """What the real API does not have."""
        if request.path == "/_bill":
            self.batches.settle()
            return wire.json_reply(self.bill.summary(whole="lines" in request.query))
        if request.path != "/_options":
            return wire.json_reply({"error": "not here"}, status=404)
        try:
            if request.method == "POST":
                self.change(**wire.parsed(request.body))
        except (ValueError, Refused) as error:
            return wire.json_reply({"error": str(error)}, status=400)
        return wire.json_reply(asdict(self.engine.options))

    def enter(self, request: Request) -> None:
        """The key and the version. What the API says to an admin key is not published: to us it is an unknown key."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Refused(401, "authentication_error", "Authentication is required: send a bearer token")
        if key.startswith("sk-ant-admin") or key in self.engine.options.refused_keys:
            raise Refused(401, "authentication_error", "invalid x-api-key")
        if request.path.startswith("/v1/messages") and "anthropic-version" not in request.headers:
            request.openai = False
            raise wire.invalid("anthropic-version: header is required")

    async def answer(self, request: Request) -> Reply:
        if request.path == "/v1/messages" and request.method == "POST":
            return await self.messages(request)
        if request.path == "/v1/chat/completions" and request.method == "POST":
            return await self.completions(request)
        if request.path == "/v1/messages/count_tokens" and request.method == "POST":
            return self.count(request)
        if request.path.startswith(BATCHES):
            return self.batch(request)
        if request.path.startswith("/v1/models") and request.method == "GET":
            return self.models(request)
        raise wire.missing(f"No such endpoint: {request.method} {request.path}")

    async def messages(self, request: Request) -> Reply:
        if self.script:
            return self.script.popleft()
        body = wire.parsed(request.body)
        outcome = await self.engine.call(body, bill.fingerprint(body), request.id)
        headers = self.engine.gate.headers()
        if body.get("stream"):
            pieces = streaming.events(outcome.message)
            return Reply(200, b"", headers, "text/event-stream; charset=utf-8", outcome.cut, pieces)
        reply = wire.json_reply(outcome.message, headers)
        reply.cut = outcome.cut
        return reply

    async def completions(self, request: Request) -> Reply:
        body = wire.parsed(request.body)
        asked = openai.messages_body(body)
        outcome = await self.engine.call(asked, bill.fingerprint(body), request.id)
        reply = wire.json_reply(openai.completion(outcome.message), _plain(self.engine.gate.headers()))
        reply.cut = outcome.cut
        return reply

    def count(self, request: Request) -> Reply:
        """`count_tokens`: free."""
        body = wire.parsed(request.body)
        asking.check(body, self.engine.options, counting=True)
        return wire.json_reply({"input_tokens": sum(block.tokens for block in tokens.blocks(body))})

    def models(self, request: Request) -> Reply:
        name = request.path.removeprefix("/v1/models").strip("/")
        if name:
            return wire.json_reply(catalogue.described(catalogue.find(name)))
        if request.openai:
            return wire.json_reply(openai.models())
        found = [catalogue.described(model) for model in catalogue.MODELS.values()]
        return wire.json_reply(catalogue.page(found, request.query))

    def batch(self, request: Request) -> Reply:
        name, _, verb = request.path.removeprefix(BATCHES).strip("/").partition("/")
        address, batches = request.address, self.batches
        match request.method, bool(name), verb:
            case "POST", False, "":
                return wire.json_reply(batches.create(wire.parsed(request.body)).described(address))
            case "GET", False, "":
                return wire.json_reply(batches.page(request.query, address))
            case "GET", True, "":
                return wire.json_reply(batches.find(name).described(address))
            case "POST", True, "cancel":
                return wire.json_reply(batches.cancel(name).described(address))
            case "GET", True, "results":
                return Reply(200, batches.results(name), kind="application/x-jsonl")
            case "DELETE", True, "":
                return wire.json_reply(batches.delete(name))
        raise wire.missing(f"No such endpoint: {request.method} {request.path}")


def _plain(headers: dict[str, str]) -> dict[str, str]:
    """The rate headers as OpenAI names them: `x-ratelimit-remaining-requests`."""
    found = {}
    for name, value in headers.items():
        kind, _, what = name.removeprefix("anthropic-ratelimit-").rpartition("-")
        if kind == "requests" and what != "reset":
            found[f"x-ratelimit-{what}-requests"] = value
    return found


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        told = (await receive())["type"]
        await send({"type": f"{told}.complete"})
        if told == "lifespan.shutdown":
            return


async def _read(receive: Receive, most: int) -> bytes | None:
    """The whole body; None when it is longer than `most` bytes."""
    found, size = [], 0
    while True:
        event = await receive()
        size += len(event.get("body", b""))
        if size <= most:
            found.append(event.get("body", b""))
        if not event.get("more_body"):
            return b"".join(found) if size <= most else None


async def _send(send: Send, reply: Reply, request_id: str) -> None:
    """Sends a reply. One that is to be cut ends in its middle, and uvicorn closes the connection."""
    pieces = reply.pieces or [reply.body]
    headers = {"content-type": reply.kind, "request-id": request_id, **reply.headers}
    if not reply.pieces:
        headers["content-length"] = str(len(reply.body))
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": named})
    if reply.cut:
        half = b"".join(pieces)
        await send({"type": "http.response.body", "body": half[: len(half) // 2], "more_body": True})
        return
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1]})


def server(app: Loopback) -> uvicorn.Server:
    """Its log is silent: a cut answer is meant, and uvicorn would report each as an error."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(app, access_log=False, log_config=None, lifespan="off", backlog=4_096)
    return uvicorn.Server(config)


@contextmanager
def served(app: Loopback) -> Iterator[str]:
    """Serves `app` from a thread of its own at a free port of the loopback; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    running = server(app)
    thread = threading.Thread(target=asyncio.run, args=(running.serve(sockets=[listener]),), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = running.force_exit = True
        thread.join(timeout=10)
        listener.close()


def environment(address: str) -> dict[str, str]:
    """What sends the official SDK here."""
    return {"ANTHROPIC_BASE_URL": address, "ANTHROPIC_API_KEY": KEY}
