"""A loopback server that speaks the wire format of Anthropic's Messages API; the test scripts its answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any], dict[str, str]]


def text(words: str, stop_reason: str = "end_turn", input_tokens: int = 40, output_tokens: int = 20) -> Answer:
    """A finished message, with a thinking block first, as current models send it."""
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": "…", "signature": "s"}]
    if words:
        content.append({"type": "text", "text": words})
    return message(content, stop_reason, input_tokens, output_tokens)


def message(content: list[dict[str, Any]], stop_reason: str, input_tokens: int, output_tokens: int) -> Answer:
    body = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }
    return 200, body, {}


def error(status: int, kind: str, words: str, headers: dict[str, str] | None = None, **details: str) -> Answer:
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_01"}
    if details:
        body["error"]["details"] = details
    return status, body, headers or {}


UNAUTHORIZED = error(401, "authentication_error", "invalid x-api-key")
LOW_CREDIT = error(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
RATE_LIMIT = error(429, "rate_limit_error", "slow down", {"retry-after-ms": "10"})
OVERLOADED = error(529, "overloaded_error", "Overloaded", {"retry-after-ms": "10"})


@dataclass
class MessagesAPI:
    """`script` is used up first, one answer for each request to /v1/messages; then `default` answers."""

    script: list[Answer] = field(default_factory=list)
    default: Callable[[dict[str, Any]], Answer] = lambda request: text("Merhaba, bu bir yanıttır.")
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: Answer = (200, {"data": [], "has_more": False, "first_id": None, "last_id": None}, {})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Answer:
        with self.lock:
            self.headers.append(headers)
            if path.startswith("/v1/models"):
                return self.models
            self.requests.append(body)
            if self.script:
                return self.script.pop(0)
        return self.default(body)

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


def _handler(api: MessagesAPI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.reply(*api.answer(self.path, {k.lower(): v for k, v in self.headers.items()}, body))

        def do_GET(self) -> None:
            self.reply(*api.answer(self.path, {k.lower(): v for k, v in self.headers.items()}, {}))

        def reply(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", "request-id": "req_01", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None: ...

    return Handler
