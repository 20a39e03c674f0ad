"""One HTTP/1.1 connection to an engine, kept alive between calls: RFC 9112, read by httptools.

A general client cost a third of a prototype's call (0.13 against 0.09 ms); an engine needs POST, a status, a body that
comes in pieces.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools

from inference.gateway.cork import Corked

MOST_WAITING = 256 * 1024  # bytes of an answer that nobody has read; above, the engine waits
LONGEST_BODY = 64 * 1024 * 1024  # bytes of an answer that is read whole


class Broken(ConnectionError):
    """The engine went away, or said something that is not HTTP."""


class Connection(asyncio.Protocol):
    """One request at a time. `idle_since` (monotonic) is when it became free, `heard_at` when bytes came last."""

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._waiting = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._asked = self._headed = self._complete = self._measured = False
        self._status = 0
        self.idle_since = self.heard_at = 0.0
        self.closed = self.answered = self.reusable = False

    async def request(self, head: bytes, body: bytes) -> int:
        """Sends one, answers the status once the header is there; raises Broken."""
        if self.closed:
            raise self._error or Broken("closed")
        self._headed = self._complete = self.answered = self.reusable = False
        self._asked = True
        self.heard_at = time.monotonic()
        self._transport.write(head + body)
        while not self._headed:
            await self._news()
        return self._status

    async def next(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises Broken."""
        while not self._parts:
            if self._complete:
                return b""
            await self._news()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """The rest of the body; raises Broken."""
        parts = []
        size = 0
        while part := await self.next():
            parts.append(part)
            size += len(part)
            if size > LONGEST_BODY:
                self.close()
                raise Broken(f"an answer of more than {LONGEST_BODY} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def done(self) -> bool:
        """Whether the answer was read to its end, so that the next request may follow."""
        return self._complete and not self._parts and self.reusable and not self.closed

    def close(self, error: Exception | None = None) -> None:
        """Ends it at once; whoever waits for the engine gets `error`."""
        self._error = self._error or error or Broken("closed")
        self.closed = True
        self._transport.abort()
        self._wake()

    async def _news(self) -> None:
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error and not self._parts and not self._complete:
            raise self._error

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, Corked(cast(asyncio.Transport, transport)))

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        if not self._asked:  # it would be taken for the next call's answer
            return self.close(Broken("the engine spoke unasked"))
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            return self.close(Broken(f"this is not HTTP: {error}"))
        if self._waiting > MOST_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        return self._wake()

    def eof_received(self) -> None:
        """A body without a length ends here; any other is cut off."""
        if self._headed and not self._complete and not self._measured:
            self._complete = True

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._error = self._error or Broken(str(error or "the engine closed the connection"))
        self._wake()

    def on_message_begin(self) -> None:
        self._measured = False
        if not self._asked:  # a second answer behind the first
            self.close(Broken("the engine spoke unasked"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._measured = True

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        self._headed = self._status >= 200  # 1xx announce another header

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return  # of an answer that nobody asked for
        self._parts.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete, self._asked = True, False
            self.reusable = self._parser.should_keep_alive()
