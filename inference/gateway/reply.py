"""ASGI in and out: what a request says before its body is read, its body, and what goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from inference import protocol
from inference.protocol import Refusal

BODY_SECONDS = 30.0  # for the whole body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Respond = Callable[[int, Mapping[str, str], bytes], Awaitable[None]]  # status, header, body


class Disconnected(Exception):
    """The client went away before its request was read."""


class Reply:
    """What goes back: every response names its request id, which is the ledger's."""

    def __init__(self, send: Send, request_id: str, respond: Respond | None = None) -> None:
        """`respond` is the server's short way to say a whole response, if it has one."""
        self._send, self._respond, self.request_id, self.begun = send, respond, request_id, False

    def json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> Awaitable[None]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        if self._respond:
            self.begun = True
            return self._respond(status, self._fields("application/json", headers or {}), data)
        return self._whole(status, data, headers or {})

    async def _whole(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        await self._begin(status, "application/json", headers | {"content-length": str(len(data))})
        await self.chunk(data, more=False)

    async def refuse(self, refusal: Refusal) -> None:
        if not self.begun:
            await self.json(refusal.status, refusal.body(self.request_id), refusal.headers())

    async def begin_stream(self, headers: dict[str, str]) -> None:
        await self._begin(200, "text/event-stream", headers | {"cache-control": "no-store", "x-accel-buffering": "no"})

    async def end_stream(self, refusal: Refusal) -> None:
        """The last event of a stream that breaks off."""
        await self.chunk(protocol.frame(refusal.body(self.request_id)), more=False)

    async def chunk(self, data: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _begin(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.begun = True
        fields = self._fields(kind, headers).items()
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in fields]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    def _fields(self, kind: str, headers: dict[str, str]) -> dict[str, str]:
        return {"content-type": kind, "x-request-id": self.request_id, **headers}


async def plain(send: Send, status: int, body: bytes, kind: str = "text/plain") -> None:
    """A whole response that is nobody's call, and not to be kept."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def bearer(scope: Scope) -> str:
    """The text of the key that came with the request, or nothing."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            return text.strip() if kind.lower() == "bearer" else ""
    return ""


def address(scope: Scope) -> str:
    """Where the request came from, as the server tells it (it believes a proxy on loopback)."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def body(scope: Scope, receive: Receive) -> bytes:
    """The request's body; raises Refusal 413 above protocol.MAX_BODY, 408 for one that does not come, Disconnected."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > protocol.MAX_BODY:
            raise too_large()
    message = await receive()  # all of a small one
    if not message.get("more_body") and message["type"] == "http.request":
        return bytes(message.get("body", b""))
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _rest(message, receive)
    except TimeoutError:
        message_ = f"The body did not arrive within {BODY_SECONDS:g} s. Send the call again."
        raise Refusal(408, "body_timeout", message_) from None


async def _rest(message: MutableMapping[str, Any], receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > protocol.MAX_BODY:
            raise too_large()
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def too_large() -> Refusal:
    return Refusal(413, "body_too_large", f"The body may have {protocol.MAX_BODY} bytes at most.")


async def gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
