"""What the embedded engine sends: answers, whole or as server-sent events, and refusals, in vLLM's shapes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from inference.engines.generation import Logged, Request

Event = tuple[int, str, str | None, int]  # number of the answer, text, finish reason, its tokens so far
LEAST = -9999.0  # JSON has no infinity


class Refused(Exception):
    """An answer with vLLM's error shape."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind

    def response(self) -> JSONResponse:
        body = {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.status}}
        return JSONResponse(body, self.status)


class Answer:
    """The answers to one request on the wire, `n` to each prompt, whole or as server-sent events."""

    prefix = object = chunk_object = ""  # of the id, and what the answer and its events are called

    def __init__(self, model: str, requests: list[Request], n: int, events: asyncio.Queue[Event]) -> None:
        self.requests, self.n, self.events = requests, n, events
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self.logged = [0] * len(requests)  # tokens of each answer whose log-probabilities were sent

    def said(self, index: int, text: str, logs: list[Logged] | None) -> dict[str, Any]:
        """What a whole answer says, in its choice."""
        raise NotImplementedError

    def added(self, index: int, text: str, logs: list[Logged] | None) -> dict[str, Any]:
        """What an event adds to an answer."""
        raise NotImplementedError

    def opening(self) -> list[dict[str, Any]]:
        """What goes before the first token of each answer."""
        return []

    def usage(self) -> dict[str, int]:
        read = sum(len(request.prompt) for request in self.requests[:: self.n])
        return counts(read, sum(len(request.tokens) for request in self.requests))

    def cancel(self) -> None:
        for request in self.requests:
            request.cancelled = True

    def logs(self, index: int, made: int) -> list[Logged] | None:
        """Of the tokens since the last time; None where they are not wanted."""
        request, since = self.requests[index], self.logged[index]
        self.logged[index] = made
        return None if request.logprobs is None else request.logs[since:made]

    async def whole(self, http: HTTPRequest) -> Response:
        texts, reasons = [""] * len(self.requests), [""] * len(self.requests)
        while not all(reasons):
            try:
                index, text, reason, _ = await asyncio.wait_for(self.events.get(), timeout=1)
            except TimeoutError:
                if await http.is_disconnected():
                    self.cancel()
                continue
            texts[index] += text
            reasons[index] = reason or ""
        if "error" in reasons:
            raise Refused(500, "InternalServerError", "Generation failed; the engine's log says why.")
        choices = [
            {"index": index, **self.said(index, text, self.logs(index, len(request.tokens))), "finish_reason": reason}
            for index, (request, text, reason) in enumerate(zip(self.requests, texts, reasons, strict=True))
        ]
        return JSONResponse({**self.head, "object": self.object, "choices": choices, "usage": self.usage()})

    async def stream(self, include_usage: bool, continuous: bool) -> AsyncIterator[bytes]:
        """`continuous`: every event says how many tokens its answer has by then, and its prompt."""
        try:
            running = set(range(len(self.requests)))
            for index, delta in enumerate(self.opening()):
                yield self.chunk(index, delta, None, 0 if continuous else None)
            while running:
                index, text, reason, made = await self.events.get()
                if reason == "error":
                    yield frame(
                        {"error": {"message": "Generation failed.", "type": "InternalServerError", "code": 500}}
                    )
                    break
                if reason:
                    running.discard(index)
                delta = self.added(index, text, self.logs(index, made))
                yield self.chunk(index, delta, reason, made if continuous else None)
            if include_usage:
                yield frame({**self.head, "object": self.chunk_object, "choices": [], "usage": self.usage()})
            yield b"data: [DONE]\n\n"
        finally:
            self.cancel()  # the client left: stop its rows

    def chunk(self, index: int, delta: dict[str, Any], reason: str | None, made: int | None) -> bytes:
        told: dict[str, Any] = {**self.head, "object": self.chunk_object}
        told["choices"] = [{"index": index, **delta, "finish_reason": reason}]
        if made is not None:
            told["usage"] = counts(len(self.requests[index].prompt), made)
        return frame(told)


class Chat(Answer):
    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def said(self, index: int, text: str, logs: list[Logged] | None) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}, "logprobs": self._logprobs(index, logs)}

    def added(self, index: int, text: str, logs: list[Logged] | None) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}, "logprobs": self._logprobs(index, logs)}

    def opening(self) -> list[dict[str, Any]]:
        return [{"delta": {"role": "assistant", "content": ""}, "logprobs": None} for _ in self.requests]

    def _logprobs(self, index: int, logs: list[Logged] | None) -> dict[str, Any] | None:
        if logs is None:
            return None
        most = self.requests[index].logprobs or 0
        told = [[_named(*pair) for pair in log] for log in logs]
        return {"content": [{**each[0], "top_logprobs": each[:most]} for each in told]}


class Completion(Answer):
    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, requests: list[Request], n: int, events: asyncio.Queue[Event]) -> None:
        super().__init__(model, requests, n, events)
        self.offsets = [0] * len(requests)

    def said(self, index: int, text: str, logs: list[Logged] | None) -> dict[str, Any]:
        return {"text": text, "logprobs": self._logprobs(index, logs)}

    added = said

    def _logprobs(self, index: int, logs: list[Logged] | None) -> dict[str, Any] | None:
        if logs is None:
            return None
        tokens = [log[0][0] for log in logs]
        offsets = [self.offsets[index]]
        for token in tokens:
            offsets.append(offsets[-1] + len(token))
        self.offsets[index] = offsets.pop()
        return {
            "text_offset": offsets,
            "token_logprobs": [max(log[0][1], LEAST) for log in logs],
            "tokens": tokens,
            "top_logprobs": [{token: max(value, LEAST) for token, value in log} for log in logs],
        }


def _named(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": max(value, LEAST), "bytes": list(token.encode())}


def counts(read: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def frame(body: Any) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def exposition(series: Sequence[tuple[str, str, float]]) -> str:
    """Prometheus's text format of (name, kind, value) without labels."""
    return "".join(f"# TYPE {name.removesuffix('_total')} {kind}\n{name} {value!r}\n" for name, kind, value in series)
