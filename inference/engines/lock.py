"""An ASGI middleware that vLLM runs: nothing but `/health` answers without the key of this start.

vLLM's own check covers `/v1` and a few more; `/adapters`, `/invocations`, `/tokenize` and `/metrics` would be open to
whoever reaches the port. Standard library only: vLLM's environment has nothing of ours.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
OPEN = "/health"
VARIABLE = "VLLM_API_KEY"
REFUSED = {"message": "This engine answers its own gateway only.", "type": "Unauthorized", "param": None, "code": 401}
BODY = json.dumps({"error": REFUSED}).encode()


class Lock:
    """Without a key in the environment it stays shut."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._key = os.environ.get(VARIABLE, "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._opens(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": BODY})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _opens(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] == OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return bool(self._key) and hmac.compare_digest(given, f"Bearer {self._key}".encode())
