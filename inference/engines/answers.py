"""What the embedded engine sends: answers, whole or as server-sent events, and refusals, in vLLM's shapes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from inference.engines.generation import Request

Event = tuple[int, str, str | None]  # number of the answer, text, finish reason


class Refused(Exception):
    """An answer with vLLM's error shape."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind

    def response(self) -> JSONResponse:
        body = {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.status}}
        return JSONResponse(body, self.status)


class Answer:
    """The answers to one request on the wire, whole or as server-sent events."""

    def __init__(self, model: str, requests: list[Request], events: asyncio.Queue[Event]) -> None:
        self.requests, self.events = requests, events
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def usage(self) -> dict[str, int]:
        prompt, made = len(self.requests[0].prompt), sum(len(request.tokens) for request in self.requests)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    def cancel(self) -> None:
        for request in self.requests:
            request.cancelled = True

    async def whole(self, http: HTTPRequest) -> Response:
        texts, reasons = [""] * len(self.requests), [""] * len(self.requests)
        while not all(reasons):
            try:
                index, text, reason = await asyncio.wait_for(self.events.get(), timeout=1)
            except TimeoutError:
                if await http.is_disconnected():
                    self.cancel()
                continue
            texts[index] += text
            reasons[index] = reason or ""
        if "error" in reasons:
            raise Refused(500, "InternalServerError", "Generation failed; the engine's log says why.")
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(zip(texts, reasons, strict=True))
        ]
        return JSONResponse({**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage()})

    async def stream(self, include_usage: bool) -> AsyncIterator[bytes]:
        try:
            running = set(range(len(self.requests)))
            for index in running:
                yield self.chunk(index, {"role": "assistant", "content": ""}, None)
            while running:
                index, text, reason = await self.events.get()
                if reason == "error":
                    yield frame(
                        {"error": {"message": "Generation failed.", "type": "InternalServerError", "code": 500}}
                    )
                    break
                if text:
                    yield self.chunk(index, {"content": text}, None)
                if reason:
                    running.discard(index)
                    yield self.chunk(index, {}, reason)
            if include_usage:
                yield frame({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()})
            yield b"data: [DONE]\n\n"
        finally:
            self.cancel()  # the client left: stop its rows

    def chunk(self, index: int, delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return frame({**self.head, "object": "chat.completion.chunk", "choices": [choice]})


def frame(body: Any) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
