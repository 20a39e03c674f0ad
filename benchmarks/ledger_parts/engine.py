"""An engine that answers at once, with random token counts: raw ASGI, so that the gateway is what is measured.

A prompt that begins with `slow` gets a stream of one token each half second, for a minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

Send = Callable[[dict[str, Any]], Awaitable[None]]
WORDS = ("Mer", "haba", " dün", "ya", "!")


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] != "/v1/chat/completions":
        return await whole(send, {"object": "list", "data": [{"id": "demo-base"}]})
    asked = orjson.loads(body)
    if not asked["stream"]:
        return await whole(send, answer(asked))
    return await stream(send, asked)


async def stream(send: Send, asked: dict[str, Any]) -> None:
    await begin(send, b"text/event-stream")
    async for event in events(asked):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    outputs = random.randint(1, asked["max_tokens"])
    message = {"role": "assistant", "content": "".join(WORDS)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"]}
    return head | {"choices": choices, "usage": usage(random.randint(5, 40), outputs)}


async def events(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    inputs, slow = random.randint(5, 40), str(asked["messages"][-1]["content"]).startswith("slow")
    count = 120 if slow else random.randint(1, min(asked["max_tokens"], 8))
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
    for number in range(count):
        if slow:
            await asyncio.sleep(0.5)
        choices = [{"index": 0, "delta": {"content": WORDS[number % len(WORDS)]}, "finish_reason": None}]
        yield b"data: %s\n\n" % orjson.dumps(head | {"choices": choices, "usage": usage(inputs, number + 1)})
    yield b"data: %s\n\n" % orjson.dumps(head | {"choices": [], "usage": usage(inputs, count)})


def usage(inputs: int, outputs: int) -> dict[str, int]:
    return {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}


async def whole(send: Send, body: dict[str, Any]) -> None:
    await begin(send, b"application/json")
    await send({"type": "http.response.body", "body": orjson.dumps(body)})


async def begin(send: Send, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
