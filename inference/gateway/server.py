"""uvicorn's HTTP protocol, lean, with the bounds that a server on the open network needs: it waits for nobody for ever.

A header may have MOST_HEAD bytes and HEAD_SECONDS (RFC 9110 15.5.9, RFC 6585 5); a client that vanished without a word
is noticed by TCP, also in the middle of a stream (RFC 5482). uvicorn's server opens, counts and ends the connections;
what a request costs is in `cycle`. A header and what is there of its body are one packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast
from urllib.parse import unquote

import httptools
import orjson
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from inference.gateway.cork import Corked
from inference.gateway.cycle import RESPOND, App, Cycle
from inference.protocol import Refusal

MOST_HEAD = 64 * 1024  # bytes of a request's first line and header
HEAD_SECONDS = 20.0  # for all of it, and between a connection and its first byte
GONE_MS = 30_000  # a client that confirms nothing for so long is gone
PLAIN_PATH = frozenset(b"/-._~abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")  # nothing to parse in it
OPTIONS: dict[str, Any] = {
    "http": "inference.gateway.server:Protocol",
    "loop": "uvloop",
    "ws": "none",
    "access_log": False,
    "log_level": "warning",
    "server_header": False,
}


class Protocol(HttpToolsProtocol):
    """One connection. `cycle` is the request that came last, `pipeline` are those that wait for their turn."""

    cycle: Cycle  # type: ignore[assignment]  # ours

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What a proxy says of its client costs a look at each header; without one there is nothing to look at.
        self._direct: App = self.app.app if isinstance(self.app, ProxyHeadersMiddleware) else self.app
        self._forwarded = self._headed = False
        self._answering: Cycle | None = None
        self._head, self._head_since, self._idle_since = 0, self.loop.time(), 0.0
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._default_head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Corked(transport))
        self._head_since = self.loop.time()
        self._watch = self.loop.call_later(min(HEAD_SECONDS, self.timeout_keep_alive), self._look)
        if (plug := transport.get_extra_info("socket")) is not None and plug.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        self.connections.discard(self)
        self.pipeline.clear()
        if self._answering:
            self._answering.lose()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # it holds this connection

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            return self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        if not self._headed and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse(431, "header_too_large", f"The header may have {MOST_HEAD} bytes at most.")
        return None

    def on_message_begin(self) -> None:
        self._headed, self._head, self._head_since = False, 0, self.loop.time()
        self.url, self.headers, self.expect_100_continue, self._forwarded = b"", [], False, False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        if name.startswith(b"x-forwarded-"):
            self._forwarded = True
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._headed = True
        url, version = self.url, self.parser.get_http_version()
        raw, query = url, b""
        if not PLAIN_PATH.issuperset(url) or not url.startswith(b"/"):
            parsed = httptools.parse_url(url)
            raw, query = parsed.path, parsed.query or b""
        path = raw.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": self.root_path.encode("ascii") + raw,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        before, keeps = self.cycle, version != "1.0" and self.parser.should_keep_alive()
        self.cycle = Cycle(self, scope, keeps, self.expect_100_continue)
        scope["extensions"] = {RESPOND: self.cycle.respond}
        app = self.app if self._forwarded else self._direct
        if before is None or before.response_complete:
            self._begin(self.cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete and self.cycle.feed(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if not self.cycle.response_complete:
            self.cycle.feed_end()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.pipeline:
            self._begin(*self.pipeline.pop())  # type: ignore[arg-type]

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", f"{msg} This is not HTTP/1.1.")

    def default_head(self) -> bytes:
        """The lines that every response has, as the server says them at the moment: its date."""
        now = self.server_state.default_headers
        if now is not self._defaults:
            self._defaults = now
            self._default_head = b"".join(b"%b: %b\r\n" % pair for pair in now)
        return self._default_head

    def _begin(self, cycle: Cycle, app: App) -> None:
        self._answering = cycle
        cycle.task = self.loop.create_task(cycle.run(app))
        self.tasks.add(cycle.task)

    def _look(self) -> None:
        """Has the client had its time? One timer a connection, which looks again when it may be so."""
        now = self.loop.time()
        due = now + self.timeout_keep_alive
        if not self._headed:
            due = self._head_since + HEAD_SECONDS
            if now >= due:
                return self._refuse(408, "header_timeout", f"The header did not arrive within {HEAD_SECONDS:g} s.")
        elif self.cycle.response_complete:
            due = self._idle_since + self.timeout_keep_alive
            if now >= due:
                return self.transport.close()
        self._watch = self.loop.call_later(min(due - now, self.timeout_keep_alive), self._look)
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Before there is a request: nothing of ours is running."""
        body = orjson.dumps(Refusal(status, code, message).body(""))
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
