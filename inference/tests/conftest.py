"""A gateway that really serves: uvicorn on a loopback port, real Redis, the real loader, an engine behind it."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import httpx2
import pytest
import uvicorn
import uvloop
from aiohttp import web
from django.conf import settings as configured
from django.db import connection

from attestation import statements
from inference import opinions, registry, snapshots
from inference.agent import Agent
from inference.engines import known
from inference.gateway import server
from inference.gateway.app import Gateway
from inference.gateway.snapshot import TenantSnapshot
from inference.models import Adapter, BaseModel
from inference.tests.signed import write_adapter
from tenants import keys, refusals
from tenants.ledger.writer import Writer
from tenants.models import Price, Tenant, UsageEvent

HELLO = {"model": "demo-base", "messages": [{"role": "user", "content": "Merhaba"}]}
ANSWER = "Merhaba dünya"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class Loop:
    """An event loop in a thread of its own; `run` waits for a coroutine there."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any, timeout: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        self.run(self._cancel_the_rest())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    async def _cancel_the_rest(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


class Engine:
    """Speaks the OpenAI wire format as vLLM does, and remembers what it was asked. `tokens` are what it answers."""

    def __init__(self) -> None:
        self.tokens = ["Mer", "haba", " dün", "ya"]
        self.pause = 0.0  # seconds between tokens
        self.usage: bool | dict[str, Any] = True  # what it reports; True: as it is
        self.counts = False  # whether it reports with every token too
        self.break_after: int | None = None
        self.refuse: int | None = None
        self.fails: dict[str, int] = {}  # model -> status it answers; 0: it hangs up instead
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.written = 0
        self.loaded: dict[str, str] = {}  # name -> path
        self.secret = ""  # what opens it, if anything is asked for
        self.start_id = "first"  # of this start
        self.under_way = 0  # what its metrics say
        self.figures: dict[str, float] = {}  # and what else
        self.confused = False  # it answers with other tokens than the adapter's

    @web.middleware
    async def lock(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.secret and request.headers.get("Authorization") != f"Bearer {self.secret}":
            return web.json_response({"error": {"message": "No.", "code": 401}}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in ("demo-base", *self.loaded)]})

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"start": self.start_id})

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "1.2.3"})

    async def metrics(self, request: web.Request) -> web.Response:
        lines = ["# HELP x y", f'vllm:num_requests_running{{model_name="a b"}} {self.under_way}.0']
        figures = [f"{name} {value!r}" for name, value in self.figures.items()]
        return web.Response(text="\n".join([*lines, "vllm:num_requests_waiting 0.0", *figures]))

    def restart(self) -> None:
        """As a new process: nothing is loaded."""
        self.start_id, self.loaded = secrets.token_hex(4), {}

    def known(self, body: dict[str, Any]) -> web.Response:
        """The recorded answer of a loaded adapter, token by token."""
        recorded = known.parse((Path(self.loaded[body["model"]]) / known.NAME).read_bytes())
        case = next(one for one in recorded.cases if list(one.prompt) == body["prompt"])
        tokens = [f"token_id:{token + self.confused}" for token in case.tokens]
        told = {"tokens": tokens, "token_logprobs": list(case.logprobs)}
        return web.json_response({"choices": [{"index": 0, "text": "x", "logprobs": told}]})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.loaded[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def unload(self, request: web.Request) -> web.Response:
        known = self.loaded.pop((await request.json())["lora_name"], None)
        return web.Response(text="Success" if known else "Not loaded", status=200 if known else 404)

    async def embed(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        data = [{"object": "embedding", "index": at, "embedding": [0.5, 0.25]} for at in range(len(texts))]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return web.json_response({"object": "list", "model": "x", "data": data, "usage": usage})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("return_tokens_as_token_ids"):
            return self.known(body)
        plain = request.path == "/v1/completions"
        self.asked.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.refuse:
            return web.json_response({"error": {"message": "No."}}, status=self.refuse)
        if body["model"] in self.fails:
            if status := self.fails[body["model"]]:
                return web.json_response({"error": {"message": "No."}}, status=status)
            request.transport.abort()  # type: ignore[union-attr]
        if body["stream"]:
            return await self._stream(request, body, plain)
        await asyncio.sleep(self.pause)
        text = "".join(self.tokens)
        said = {"text": text} if plain else {"message": {"role": "assistant", "content": text}}
        choices = [{"index": at, "finish_reason": "stop"} | said for at in range(body.get("n", 1))]
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices}
        return web.json_response(whole | ({"usage": self._usage(body)} if self.usage else {}))

    async def _stream(self, request: web.Request, body: dict[str, Any], plain: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for number, token in enumerate(self.tokens):
            if number == self.break_after:
                request.transport.abort()  # type: ignore[union-attr]
                return response
            await asyncio.sleep(self.pause)
            for index in range(body.get("n", 1)):
                said = {"text": token} if plain else {"delta": {"content": token}}
                choices = [{"index": index, "finish_reason": None} | said]
                if self.counts:  # as vLLM: of this answer
                    of_it = {"prompt_tokens": 7, "completion_tokens": number + 1, "total_tokens": 8 + number}
                    head["usage"] = of_it
                await response.write(b"data: %s\n\n" % json.dumps(head | {"choices": choices}).encode())
                self.written += 1
        head.pop("usage", None)
        if self.usage and body["stream_options"]["include_usage"]:
            last = head | {"choices": [], "usage": self._usage(body)}
            await response.write(b"data: %s\n\n" % json.dumps(last).encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.usage, dict):
            return self.usage
        count = len(self.tokens) * body.get("n", 1)
        return {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}


def load(key_id: str) -> TenantSnapshot | None:
    """As the server's: in a thread whose connection is given back."""
    try:
        return snapshots.load(key_id)
    finally:
        connection.close()


def keep(*told: Any) -> bool:
    try:
        return opinions.keep(*told)
    finally:
        connection.close()


class Serving:
    """What a test needs: the address, the engine behind it, the gateway itself, and `book` to write the ledger."""

    def __init__(self, loop: Loop, redis_url: str) -> None:
        self.loop, self.redis_url, self.engine = loop, redis_url, Engine()
        self.writer = Writer("test")
        self.agent: Agent | None = None
        self.cache = Path(configured.VAR) / "agents" / secrets.token_hex(4)

    def start(self) -> None:
        self.engine_port = self.loop.run(self._start_engine())
        self.gateway = Gateway(load, self.redis_url, refusals.secret(), keep)
        self.loop.run(self.gateway.startup())
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        config = uvicorn.Config(self.gateway, lifespan="off", timeout_graceful_shutdown=2, **server.OPTIONS)
        self.server = uvicorn.Server(config)
        self.serving = asyncio.run_coroutine_threadsafe(self.server.serve([listener]), self.loop.loop)
        while not self.server.started:
            time.sleep(0.005)

    async def _start_engine(self) -> int:
        app = web.Application(middlewares=[self.engine.lock])
        app.router.add_post("/v1/chat/completions", self.engine.chat)
        app.router.add_post("/v1/completions", self.engine.chat)
        app.router.add_post("/v1/embeddings", self.engine.embed)
        app.router.add_get("/v1/models", self.engine.models)
        app.router.add_get("/health", self.engine.health)
        app.router.add_get("/version", self.engine.version)
        app.router.add_get("/metrics", self.engine.metrics)
        app.router.add_post("/v1/load_lora_adapter", self.engine.load)
        app.router.add_post("/v1/unload_lora_adapter", self.engine.unload)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return int(self.runner.addresses[0][1])

    def stop_engine(self) -> None:
        self.loop.run(self.runner.cleanup())

    def stop(self) -> None:
        self.server.should_exit = True
        self.serving.result(10)
        self.loop.run(self.gateway.shutdown(0.1))
        self.stop_engine()

    def post(self, key: str, body: Any = None, path: str = "/chat/completions") -> httpx2.Response:
        """A chat completion with `key`: HELLO with changes, or raw bytes."""
        content = body if isinstance(body, bytes) else json.dumps(HELLO | (body or {})).encode()
        return httpx2.post(self.url + path, content=content, headers={"authorization": f"Bearer {key}"}, timeout=20)

    def crowd(self, key: str, count: int, body: dict[str, Any] | None = None) -> list[Answer]:
        """The answers to `count` calls at once."""

        async def one(session: aiohttp.ClientSession) -> Answer:
            headers = {"authorization": f"Bearer {key}"}
            async with session.post(
                f"{self.url}/chat/completions", json=HELLO | (body or {}), headers=headers
            ) as reply:
                told = {name.lower(): value for name, value in reply.headers.items()}
                return Answer(reply.status, told, await reply.json())

        async def all_of_them() -> list[Answer]:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                return await asyncio.gather(*(one(session) for _ in range(count)))

        return asyncio.run(all_of_them())

    def stream(self, key: str, body: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The events of a stream as they come, without the last word."""
        content = json.dumps(HELLO | {"stream": True} | (body or {}))
        headers = {"authorization": f"Bearer {key}"}
        with httpx2.stream("POST", f"{self.url}/chat/completions", content=content, headers=headers) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])

    def look(self) -> Agent:
        """The agent beside the engine, once it has done what there was to do."""
        if self.agent is None:
            self.agent = Agent("engine", configured.ENGINE_URL, configured.ENGINE_KEY_FILE, self.cache)
        self.agent.settle()
        return self.agent

    def rows(self) -> list[UsageEvent]:
        """The ledger, once everything in the stream is booked."""
        self.book()
        return list(UsageEvent.objects.order_by("pk"))

    def book(self) -> int:
        """Writes what the stream holds into the ledger; answers how many entries there were."""
        return self.writer.drain()


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture
def base(db: None) -> BaseModel:
    """A base model with a price: 1 nano-dollar a token in, 4 out."""
    Price.objects.create(
        model="demo-base",
        input_nano_per_mtok=1_000_000,
        output_nano_per_mtok=4_000_000,
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return BaseModel.objects.create(name="demo-base", source="/models/demo-base")


@pytest.fixture
def serving(
    transactional_db: None, base: BaseModel, loop_thread: Loop, redis_url: str, settings: Any
) -> Iterator[Serving]:
    serving = Serving(loop_thread, redis_url)
    serving.writer.drain()  # the ledger vouches for this Redis
    serving.start()
    settings.ENGINE_URL = f"http://127.0.0.1:{serving.engine_port}"
    serving.look()
    yield serving
    serving.stop()


@pytest.fixture
def key(transactional_db: None, cast: Any) -> str:
    """The text of Acme's key."""
    return keys.create(cast.acme, "test", cast.owner)[1]


@pytest.fixture
def publish(base: BaseModel, cast: Any, tmp_path: Path) -> Callable[..., Adapter]:
    """Registers the next version of an adapter with really signed files; `tenant` is Acme unless said."""

    def make(name: str = "destek", tenant: Tenant | None = None) -> Adapter:
        tenant = tenant or cast.acme
        path = tmp_path / secrets.token_hex(4)
        path.mkdir()
        write_adapter(path, base.name)
        statement = statements.sign_directory(str(tenant.pk), statements.ADAPTER, f"{tenant.slug}/{name}", path, {})
        return registry.register(tenant, name, base, path, statement, {"reward_accuracy": 0.9})

    return make


@pytest.fixture
def engine(serving: Serving) -> Engine:
    """The engine of `serving`, where the registry finds it too."""
    return serving.engine
