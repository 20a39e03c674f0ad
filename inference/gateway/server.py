"""uvicorn's HTTP protocol with the bounds that a server on the open network needs: it waits for nobody for ever.

A header may have MOST_HEAD bytes and HEAD_SECONDS (RFC 9110 15.5.9, RFC 6585 5); a client that vanished without a word
is noticed by TCP, also in the middle of a stream (RFC 5482).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inference.protocol import Refusal

MOST_HEAD = 64 * 1024  # bytes of a request's first line and header
HEAD_SECONDS = 20.0  # for all of it, and between a connection and its first byte
GONE_MS = 30_000  # a client that confirms nothing for so long is gone
OPTIONS: dict[str, Any] = {
    "http": "inference.gateway.server:Protocol",
    "loop": "uvloop",
    "ws": "none",
    "access_log": False,
    "log_level": "warning",
    "server_header": False,
}


class Corked:
    """A transport that writes once a tick of the loop: a header and its body, or several events, are one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Corked(transport, self.loop))
        self._headed, self._head, self._head_since = False, 0, self.loop.time()
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look)
        if (plug := transport.get_extra_info("socket")) is not None and plug.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._headed and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse(431, "header_too_large", f"The header may have {MOST_HEAD} bytes at most.")

    def on_message_begin(self) -> None:
        self._headed, self._head, self._head_since = False, 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headed = True
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", f"{msg} This is not HTTP/1.1.")

    def _look(self) -> None:
        if not self._headed and self.loop.time() - self._head_since >= HEAD_SECONDS:
            return self._refuse(408, "header_timeout", f"The header did not arrive within {HEAD_SECONDS:g} s.")
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look)
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Before there is a request: nothing of ours is running."""
        body = orjson.dumps(Refusal(status, code, message).body(""))
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
