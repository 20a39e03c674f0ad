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
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from inference.engines import body
from inference.engines.answers import Answer, Chat, Completion, Event, Refused, exposition
from inference.engines.generation import Loader, Request

DEFAULT_MAX_TOKENS, DEFAULT_COMPLETION = 128, 16  # tokens of an answer whose caller names no number
POLL = 0.5  # seconds between looks for the base model
MOST_ANSWERS = 8  # to one request


class Server:
    """The routes. `name` is what the base model is called in requests."""

    def __init__(self, path: Path, name: str) -> None:
        self.loader = Loader(path)
        self.name = name
        self.problem = "waiting for base model"
        self.started = time.time()
        self.asked = self.answers = 0  # prompts, and the answers to them
        self.start = secrets.token_hex(8)  # tells this start from others

    def application(self) -> Starlette:
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/metrics", self.metrics),
            Route("/version", self.version),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/embeddings", self.embed, methods=["POST"]),
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
        asked = await body.read(http)
        name, path = body.text_of(asked, "lora_name"), body.text_of(asked, "lora_path")
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
        name = body.text_of(await body.read(http), "lora_name")
        try:
            await asyncio.wrap_future(self.loader.call(lambda: self.loader.unload(name)))
        except KeyError:
            raise Refused(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.") from None
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def chat(self, http: HTTPRequest) -> Response:
        self.check_ready()
        asked = await body.read(http)
        prompt = self.loader.encode(body.messages(asked))
        length = "max_completion_tokens" if asked.get("max_completion_tokens") is not None else "max_tokens"
        wanted = Wanted([prompt], length, DEFAULT_MAX_TOKENS, body.chat_logprobs(asked))
        return await self.answer(http, asked, Chat, wanted)

    async def complete(self, http: HTTPRequest) -> Response:
        self.check_ready()
        asked = await body.read(http)
        given = body.prompts(asked, self.loader.vocabulary)
        prompts = [self.loader.tokens_of(one) if isinstance(one, str) else one for one in given]
        wanted = Wanted(prompts, "max_tokens", DEFAULT_COMPLETION, body.logprobs(asked))
        return await self.answer(http, asked, Completion, wanted)

    async def embed(self, http: HTTPRequest) -> Response:
        raise body.bad(
            "This engine makes no embeddings: its model was trained to write. Serve one that embeds on vLLM."
        )

    async def answer(self, http: HTTPRequest, asked: dict[str, Any], kind: type[Answer], wanted: Wanted) -> Response:
        model = body.text_of(asked, "model")
        if model != self.name and model not in self.loader.adapters:
            raise Refused(404, "NotFoundError", f"The model `{model}` does not exist.")
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(index: int, text: str, reason: str | None, made: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed: the server stops
                loop.call_soon_threadsafe(events.put_nowait, (index, text, reason, made))

        n = int(body.number(asked, "n", 1, 1, MOST_ANSWERS))
        requests = self.requests(asked, model, wanted, n, emit)
        self.asked, self.answers = self.asked + len(wanted.prompts), self.answers + len(requests)
        for request in requests:
            self.loader.submit(request)
        answer = kind(model, requests, n, events)
        if asked.get("stream"):
            options = asked.get("stream_options") or {}
            usage = bool(options.get("include_usage"))
            told = answer.stream(usage, usage and bool(options.get("continuous_usage_stats")))
            return StreamingResponse(told, media_type="text/event-stream")
        return await answer.whole(http)

    def requests(
        self, asked: dict[str, Any], model: str, wanted: Wanted, n: int, emit: Callable[..., None]
    ) -> list[Request]:
        """`n` for each prompt; with a seed each of these has its own, so that they differ."""
        seed = None if asked.get("seed") is None else int(body.number(asked, "seed", 0))
        return [
            Request(
                prompt=prompt,
                adapter=None if model == self.name else model,
                max_tokens=self.length(asked, wanted, len(prompt)),
                emit=functools.partial(emit, at * n + number),
                temperature=body.number(asked, "temperature", 1.0, 0, 10),
                top_p=body.number(asked, "top_p", 1.0, 1e-6, 1),
                seed=None if seed is None else seed + number,
                repetition_penalty=body.number(asked, "repetition_penalty", self.loader.penalty, 1e-3, 100),
                stop=body.stops(asked),
                logprobs=wanted.logprobs,
                names_ids=bool(asked.get("return_tokens_as_token_ids")),
            )
            for at, prompt in enumerate(wanted.prompts)
            for number in range(n)
        ]

    def length(self, asked: dict[str, Any], wanted: Wanted, prompt: int) -> int:
        """How many tokens the answer may have; refuses what does not fit the context beside the prompt."""
        room = self.loader.context - prompt
        length = int(body.number(asked, wanted.length, max(1, min(room, wanted.default)), 1))
        if length > room:
            raise body.bad(
                f"This model's maximum context length is {self.loader.context} tokens. However, you requested "
                f"{length} output tokens and your prompt contains {prompt} input tokens."
            )
        return length

    async def version(self, http: HTTPRequest) -> Response:
        from importlib.metadata import version

        return JSONResponse({"version": f"transformers {version('transformers')}, peft {version('peft')}"})

    async def metrics(self, http: HTTPRequest) -> Response:
        """What was read and made since the start, by vLLM's names: each of `n` answers reads its prompt."""
        return PlainTextResponse(
            exposition(
                [
                    ("process_start_time_seconds", "gauge", self.started),
                    ("vllm:num_requests_running", "gauge", self.loader.under_way),
                    ("vllm:num_requests_waiting", "gauge", 0),
                    ("vllm:prompt_tokens_total", "counter", self.loader.prompt_tokens),
                    ("vllm:generation_tokens_total", "counter", self.loader.generation_tokens),
                    ("vllm:request_params_n_sum", "untyped", self.answers),
                    ("vllm:request_params_n_count", "untyped", self.asked),
                ]
            )
        )


@dataclass
class Wanted:
    """What is to be answered: token ids of prompts, which field says how long and what it is by default, logprobs."""

    prompts: list[list[int]]
    length: str
    default: int
    logprobs: int | None


async def refuse(http: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


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
