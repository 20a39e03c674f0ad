"""The embedded engine: `python -m inference.engines.embedded --model PATH`, an OpenAI-compatible server on transformers
and PEFT for machines without vLLM. It speaks vLLM's addresses, statuses and shapes, so that vLLM is one setting away.

It starts before its base model exists (`/health` answers 503 until then), serves base and adapters side by side, and
keeps no state: whoever restarts it loads the adapters again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import math
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from inference.engines.answers import Answer, Event, Refused
from inference.engines.generation import Loader, Request

DEFAULT_MAX_TOKENS = 128
POLL = 0.5  # seconds between looks for the base model
MOST_ANSWERS = 8  # to one request


class Server:
    """The routes. `name` is what the base model is called in requests."""

    def __init__(self, path: Path, name: str) -> None:
        self.loader = Loader(path)
        self.name = name
        self.problem = "waiting for base model"
        self.start = secrets.token_hex(8)  # tells this start from others

    def application(self) -> Starlette:
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={Refused: refuse})

    @contextlib.asynccontextmanager
    async def lifespan(self, application: Starlette) -> AsyncIterator[None]:
        opening = asyncio.create_task(self.open_when_there())
        yield
        opening.cancel()
        self.loader.close()

    async def open_when_there(self) -> None:
        """The base model is another process's file: only looking tells that it is there."""
        while not (self.loader.path / "config.json").exists():  # noqa: ASYNC110
            await asyncio.sleep(POLL)
        self.problem = "loading the base model"
        try:
            await asyncio.to_thread(self.loader.open)
        except (OSError, ValueError) as error:
            self.problem = f"the base model in {self.loader.path} cannot be loaded: {error}"

    def check_ready(self) -> None:
        if not self.loader.ready:
            raise Refused(503, "ServiceUnavailableError", self.problem)

    async def health(self, http: HTTPRequest) -> Response:
        self.check_ready()
        return JSONResponse({"model": self.name, "adapters": len(self.loader.adapters), "start": self.start})

    async def models(self, http: HTTPRequest) -> Response:
        self.check_ready()
        base = {
            "id": self.name,
            "object": "model",
            "owned_by": "paramstack",
            "root": str(self.loader.path),
            "parent": None,
        }
        adapters = [{**base, "id": name, "root": name, "parent": self.name} for name in list(self.loader.adapters)]
        return JSONResponse({"object": "list", "data": [base, *adapters]})

    async def load(self, http: HTTPRequest) -> Response:
        self.check_ready()
        body = await read(http)
        name, path = text_of(body, "lora_name"), text_of(body, "lora_path")
        if name == self.name:
            raise Refused(400, "InvalidUserInput", f"'{name}' is the name of the base model.")
        if not (Path(path) / "adapter_config.json").is_file():
            raise Refused(404, "NotFoundError", f"No adapter found for '{path}'.")
        try:
            await asyncio.wrap_future(self.loader.call(lambda: self.loader.load(name, path)))
        except (ValueError, OSError, RuntimeError) as error:
            raise Refused(400, "InvalidUserInput", str(error)) from error
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, http: HTTPRequest) -> Response:
        self.check_ready()
        name = text_of(await read(http), "lora_name")
        try:
            await asyncio.wrap_future(self.loader.call(lambda: self.loader.unload(name)))
        except KeyError:
            raise Refused(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.") from None
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def chat(self, http: HTTPRequest) -> Response:
        self.check_ready()
        body = await read(http)
        model = text_of(body, "model")
        if model != self.name and model not in self.loader.adapters:
            raise Refused(404, "NotFoundError", f"The model `{model}` does not exist.")
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(index: int, text: str, reason: str | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed: the server stops
                loop.call_soon_threadsafe(events.put_nowait, (index, text, reason))

        requests = self.requests(body, model, emit)
        for request in requests:
            self.loader.submit(request)
        answer = Answer(model, requests, events)
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(answer.stream(usage), media_type="text/event-stream")
        return await answer.whole(http)

    def requests(self, body: dict[str, Any], model: str, emit: Callable[..., None]) -> list[Request]:
        """One for each of the `n` answers; with a seed each answer has its own, so that they differ."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise Refused(400, "BadRequestError", "'messages' must be a list with at least one message.")
        plain = [{"role": str(message.get("role", "user")), "content": content_of(message)} for message in messages]
        prompt = self.loader.encode(plain)
        seed = None if body.get("seed") is None else int(number(body, "seed", 0))
        return [
            Request(
                prompt=prompt,
                adapter=None if model == self.name else model,
                max_tokens=self.length(body, len(prompt)),
                emit=functools.partial(emit, index),
                temperature=number(body, "temperature", 1.0, 0, 10),
                top_p=number(body, "top_p", 1.0, 1e-6, 1),
                seed=None if seed is None else seed + index,
                stop=stops(body),
            )
            for index in range(int(number(body, "n", 1, 1, MOST_ANSWERS)))
        ]

    def length(self, body: dict[str, Any], prompt: int) -> int:
        """How many tokens the answer may have; refuses what does not fit the context beside the prompt."""
        room = self.loader.context - prompt
        asked = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        wanted = int(number(body, asked, max(1, min(room, DEFAULT_MAX_TOKENS)), 1))
        if wanted > room:
            raise Refused(
                400,
                "BadRequestError",
                f"This model's maximum context length is {self.loader.context} tokens. However, you requested "
                f"{wanted} output tokens and your prompt contains {prompt} input tokens.",
            )
        return wanted


async def refuse(http: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def read(http: HTTPRequest) -> dict[str, Any]:
    try:
        body = orjson.loads(await http.body())
    except orjson.JSONDecodeError as error:
        raise Refused(400, "BadRequestError", f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise Refused(400, "BadRequestError", "The body must be a JSON object.")
    return body


def text_of(body: dict[str, Any], name: str) -> str:
    if not isinstance(body.get(name), str) or not body[name]:
        raise Refused(400, "BadRequestError", f"'{name}' must be a text.")
    return str(body[name])


def number(body: dict[str, Any], name: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(400, "BadRequestError", f"'{name}' must be a number.")
    if not low <= value <= high:
        raise Refused(400, "BadRequestError", f"'{name}' must lie between {low:g} and {high:g}; it is {value}.")
    return value


def stops(body: dict[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    found = [stop] if isinstance(stop, str) else stop
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise Refused(400, "BadRequestError", "'stop' must be a text or a list of texts.")
    return found


def content_of(message: dict[str, Any]) -> str:
    """The text of a message; text parts are joined."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description="OpenAI-compatible engine on transformers and PEFT.")
    parser.add_argument("--model", type=Path, required=True, help="directory of the base model; may appear later")
    parser.add_argument("--served-model-name", default="", help="default: the directory's name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8041)
    options = parser.parse_args()
    server = Server(options.model, options.served_model_name or options.model.name)
    uvicorn.run(
        server.application(), host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=5
    )


if __name__ == "__main__":
    main()
