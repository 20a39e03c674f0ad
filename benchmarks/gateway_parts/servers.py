"""What is compared: the product's gateway, LiteLLM's proxy, nginx. One worker each, the same engine behind them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis

from benchmarks import harness
from benchmarks.gateway_parts import proc
from benchmarks.ledger_parts import cast
from benchmarks.ledger_parts.stand import NotThere, Process, Stand, free_port, listens, redis_binary, until
from inference import policies
from tenants import metering
from tenants.ledger.writer import Writer
from tenants.models import APIKey, Quota, Tenant

NO_RULES = "version: 1\nrules: []\n"
LIMITS = {
    "requests_per_minute": Quota.MOST_PER_MINUTE,
    "tokens_per_minute": Quota.MOST_PER_MINUTE,
    "concurrent_calls": Quota.MOST_OPEN,
}
PEERS = harness.ROOT / "benchmarks" / "peers"
LITELLM = harness.ROOT / ".venv-peer-litellm" / "bin" / "litellm"
LITELLM_MODEL = "fake-model"
SMALL_LIMIT = 3  # requests a minute of the key that shows that limits do limit


@dataclass
class Server:
    """`redis` is its own; `beside` are processes that work for it behind the calls."""

    name: str
    port: int
    process: Process
    key: str = "none"
    model: str = cast.MODEL
    redis: Process | None = None
    redis_url: str = ""
    beside: list[Process] = field(default_factory=list)

    def cpu(self) -> tuple[float, float, float]:
        """Seconds so far: of the server, of its Redis, of what works beside it."""
        store = proc.cpu_seconds(self.redis.pid) if self.redis else 0.0
        return proc.cpu_seconds(self.process.pid), store, sum(proc.cpu_seconds(one.pid) for one in self.beside)

    def commands(self) -> int:
        """How many its Redis has run."""
        if not self.redis:
            return 0
        with redis.Redis.from_url(self.redis_url) as client:
            told: Any = client.info("commandstats")
        return sum(int(command["calls"]) for command in told.values())

    def rest(self) -> None:
        """Until nothing that earlier calls left to do is waiting."""
        if self.beside:
            with redis.Redis.from_url(self.redis_url) as client:
                until(lambda: not client.xlen(metering.STREAM), "The ledger writer does not catch up", 120)

    def answers(self) -> bool:
        return ask(self.port, self.key, self.model) == 200


def ask(port: int, key: str, model: str) -> int:
    """The status of one small call; 0 if nobody answers."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 8})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def account() -> cast.Account:
    """A tenant with a budget, limits on itself and on its key that no bench reaches, and a policy without rules."""
    one = cast.accounts(1, **LIMITS)[0]
    tenant = Tenant.objects.get(pk=one.tenant)
    Quota.objects.create(tenant=tenant, key=APIKey.objects.get(pk=one.key), **LIMITS)
    policies.save(tenant, NO_RULES, None)
    return one


def ours(ground: Stand) -> Server:
    """The data plane alone, with the part's Redis and database and a ledger writer beside it."""
    who = account()
    Writer("bench").drain()
    writer = ground.writer()
    port = free_port()
    made = ground.process("gateway", "manage.py", "serve", "--gateway", *_place(port), "--workers", "1")
    made.start()
    return Server("ours", port, made, who.text, cast.MODEL, ground.redis, ground.redis_url, [writer])


def await_server(server: Server, patience: float = 90) -> None:
    until(lambda: listens(server.port), f"{server.name} does not start", patience, server.process.log)
    until(server.answers, f"{server.name} does not answer", 30, server.process.log)


def nginx(ground: Stand, upstream: int) -> Server:
    """A plain reverse proxy: what forwarding alone costs. Connections to the upstream are kept."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not binary:
        raise NotThere("The bench compares with nginx: install the package nginx-light")
    home, port = ground.directory / "nginx", free_port()
    home.mkdir()
    (home / "nginx.conf").write_text(NGINX % {"home": home, "port": port, "upstream": upstream})
    command = [binary, "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]
    made = Process(command, ground.env, home / "out.log")
    ground.processes.append(made)
    made.start()
    return Server("nginx", port, made)


NGINX = """
daemon off;
worker_processes 1;
pid %(home)s/pid;
error_log %(home)s/error.log warn;
events { worker_connections 4096; }
http {
    access_log %(home)s/access.log;
    client_body_temp_path %(home)s/body;
    proxy_temp_path %(home)s/proxy;
    fastcgi_temp_path %(home)s/fastcgi;
    uwsgi_temp_path %(home)s/uwsgi;
    scgi_temp_path %(home)s/scgi;
    keepalive_requests 100000000;
    upstream engine {
        server 127.0.0.1:%(upstream)d;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }
    }
}
"""


def litellm(ground: Stand, upstream: int) -> Server | None:
    """LiteLLM's proxy with limits on its key, counted in a Redis of its own; None if a quick run lacks it."""
    if not LITELLM.exists():
        if harness.QUICK:
            return None
        raise NotThere("The bench compares with LiteLLM: `make peers NAME=litellm` installs it")
    home, port, store = ground.directory / "litellm", free_port(), free_port()
    home.mkdir()
    kept = _plain_redis(ground, store)
    shutil.copy(PEERS / "litellm_auth.py", home)
    config = home / "config.yaml"
    config.write_text(json.dumps(litellm_config(upstream, store)))  # JSON is YAML
    made = Process([str(LITELLM), "--config", str(config), *_place(port), "--num_workers", "1"], {}, home / "log")
    made.env |= {name: ground.env[name] for name in ("PATH", "HOME", "LANG") if name in ground.env}
    made.env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "NO_PROXY": "*"}
    made.env |= {"BENCH_SMALL_LIMIT": str(SMALL_LIMIT)}
    ground.processes.append(made)
    made.start()
    url = f"redis://127.0.0.1:{store}/0"
    return Server("litellm", port, made, "sk-bench", LITELLM_MODEL, kept, url)


def litellm_config(upstream: int, store: int) -> dict[str, object]:
    """No database, no telemetry, no cached answers; limits and router count in Redis.

    `cache` with no call types is LiteLLM's documented way to have its Redis for limits alone.
    """
    where = {"host": "127.0.0.1", "port": str(store)}
    engine = {"model": f"openai/{LITELLM_MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    cache = {"type": "redis", **where, "supported_call_types": []}
    return {
        "model_list": [{"model_name": LITELLM_MODEL, "litellm_params": engine}],
        "litellm_settings": {"telemetry": False, "cache": True, "cache_params": cache},
        "router_settings": {f"redis_{name}": value for name, value in where.items()},
        "general_settings": {
            "master_key": f"sk-{secrets.token_hex(32)}",
            "custom_auth": "litellm_auth.user_api_key_auth",
        },
    }


def litellm_limits(server: Server) -> dict[str, object]:
    """Whether it counts in its Redis and refuses what is over a limit: facts, and NotThere if it does not."""
    statuses = Counter(ask(server.port, "sk-small", server.model) for _ in range(2 * SMALL_LIMIT))
    with redis.Redis.from_url(server.redis_url, decode_responses=True) as client:
        names = sorted({re.sub(r"[0-9a-f]{64}", "<key>", name) for name in client.scan_iter(count=1000)})
    if set(statuses) != {200, 429} or not names:
        raise NotThere(f"LiteLLM does not limit: {statuses}, {len(names)} keys in Redis")
    return {"statuses": {str(status): count for status, count in statuses.items()}, "redis_keys": names}


def _plain_redis(ground: Stand, port: int) -> Process:
    options = f"--port {port} --bind 127.0.0.1 --loglevel warning --appendonly no --dir {ground.directory}"
    made = Process([redis_binary(), *options.split(), "--save", ""], ground.env, ground.directory / "peer-redis.log")
    ground.processes.append(made)
    made.start()
    until(lambda: listens(port), "LiteLLM's Redis does not start", 10, made.log)
    return made


def _place(port: int) -> Iterator[str]:
    yield from ("--host", "127.0.0.1", "--port", str(port))


def engine_port(ground: Stand) -> int:
    """Where the gateway looks for its engine."""
    return int(urlsplit(ground.env["ENGINE_URL"]).port or 0)
