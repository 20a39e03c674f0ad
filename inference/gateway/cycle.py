"""One request and its response on a connection: ASGI's two channels, without what a gateway's call does not need.

uvicorn's own cycle was a seventh of a call: an event, regular expressions over each header, a timer for each response.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.gateway.server import Protocol

log = logging.getLogger(__name__)
CONTROL = re.compile(b"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 5.5: no field has them
BODILESS = (204, 304)
RESPOND = "paramstack.respond"
App = Callable[..., Awaitable[None]]


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class Cycle:
    """`complete` once the response has been said, `disconnected` if its client went before."""

    __slots__ = (
        "_begun",
        "_body",
        "_chunked",
        "_event",
        "_expects",
        "_head",
        "_left",
        "_more",
        "_news",
        "_protocol",
        "disconnected",
        "keep_alive",
        "response_complete",
        "scope",
        "task",
    )

    def __init__(self, protocol: Protocol, scope: dict[str, Any], keep_alive: bool, expects: bool) -> None:
        self._protocol, self.scope, self.keep_alive, self._expects = protocol, scope, keep_alive, expects
        self.disconnected = self.response_complete = self._begun = self._news = False
        self._body, self._more = b"", True
        self._event: asyncio.Event | None = None  # of whoever waits for news
        self._head = b""  # not written yet
        self._chunked, self._left = False, 0  # bytes that Content-Length still promises
        self.task: asyncio.Task[None] | None = None

    def feed(self, body: bytes) -> int:
        """More of the request's body; answers how many bytes wait to be read."""
        self._body += body
        self._wake()
        return len(self._body)

    def feed_end(self) -> None:
        self._more = False
        self._wake()

    def lose(self) -> None:
        """The connection is gone."""
        self.disconnected = self.disconnected or not self.response_complete
        self._wake()

    async def run(self, app: App) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            log.exception("%s failed.", self.scope["path"])
            await self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("%s was not answered to the end.", self.scope["path"])
                await self._fail()
        finally:
            self._protocol.tasks.discard(self.task)

    async def receive(self) -> dict[str, Any]:
        if self._expects and not self._protocol.transport.is_closing():
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects = False
        if not self.disconnected and not self.response_complete:
            self._protocol.flow.resume_reading()
            if not self._news:
                self._event = self._event or asyncio.Event()
                await self._event.wait()
                self._event.clear()
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def respond(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        """A whole response at once, what `send` says in two messages: RESPOND among the scope's extensions.

        `fields` are the header's but for Content-Length, which is added.
        """
        flow = self._protocol.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if self._begun:
            raise RuntimeError("a response has begun")
        if not "".join(fields.values()).isprintable():
            raise RuntimeError("a header with a control character")
        told = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        self._begin(status, f"{told}content-length: {len(body)}\r\n".encode("ascii"), closing=False)
        self._left = len(body)
        self._head += b"\r\n"
        self._continue(body, more=False)

    async def send(self, message: Any) -> None:
        """Waits while the client does not take what was sent; raises RuntimeError for what is no response."""
        flow = self._protocol.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if self.response_complete or kind != ("http.response.body" if self._begun else "http.response.start"):
            raise RuntimeError(f"{kind} has no place here")
        if self._begun:
            self._continue(message.get("body", b""), message.get("more_body", False))
        else:
            self._start(message["status"], list(message.get("headers", ())))

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        pairs = [(name.lower(), value) for name, value in headers]
        fields = dict(pairs)
        length = fields.get(b"content-length")
        self._left = int(length or 0)
        self._chunked = length is None and fields.get(b"transfer-encoding", b"").lower() == b"chunked"
        lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
        told = lines.replace(b"\r\n", b"")
        if len(lines) - len(told) != 2 * len(pairs) or CONTROL.search(told):
            raise RuntimeError("a header with a control character")
        self._begin(status, lines, b"close" in fields.get(b"connection", b"").lower())
        if length is None and not self._chunked and self.scope["method"] != "HEAD" and status not in BODILESS:
            self._chunked = True
            self._head += b"transfer-encoding: chunked\r\n"
        self._head += b"\r\n"
        if self._chunked:  # its first piece may come late
            self._protocol.transport.write(self._head)
            self._head = b""

    def _begin(self, status: int, lines: bytes, closing: bool) -> None:
        self._begun, self._expects = True, False
        self._head = STATUS_LINES[status] + self._protocol.default_head() + lines
        if not self.keep_alive and not closing:
            self._head += b"connection: close\r\n"
        self.keep_alive = self.keep_alive and not closing

    def _continue(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body, self._left = b"", 0
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("a body of another length than Content-Length says")
        if self._head:
            body, self._head = self._head + body, b""
        if body:
            self._protocol.transport.write(body)
        if not more:
            self.response_complete = True
            self._wake()
            if not self.keep_alive:
                self._protocol.transport.close()
            self._protocol.on_response_complete()

    async def _fail(self) -> None:
        """Ends a response that its application did not."""
        if self._begun or self.disconnected:
            self._protocol.transport.close()
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"21"),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    def _wake(self) -> None:
        self._news = True
        if self._event:
            self._event.set()
