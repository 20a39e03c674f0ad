"""The product's gateway and the bench's engine as processes."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from benchmarks.ledger_parts.stand import Process, Stand, free_port, listens, until

OPTIONS = (
    "--host",
    "127.0.0.1",
    "--loop",
    "uvloop",
    "--http",
    "httptools",
    "--no-access-log",
    "--log-level",
    "warning",
)


def engine(ground: Stand) -> Process:
    port = str(urlsplit(ground.env["ENGINE_URL"]).port)
    made = ground.process(
        "engine", "-m", "uvicorn", "benchmarks.ledger_parts.engine:application", "--port", port, *OPTIONS
    )
    made.start()
    until(lambda: listens(int(port)), "The engine does not start", 30, made.log)
    return made


def gateway(ground: Stand, port: int) -> Process:
    """The whole site's ASGI application, as `make up` serves it; started, and restarted on the same port."""
    made = ground.process(
        f"gateway-{port}", "-m", "uvicorn", "paramstack_site.asgi:application", "--port", str(port), *OPTIONS
    )
    made.start()
    return made


def start(ground: Stand, gateways: int) -> list[int]:
    """Engine and gateways; answers the gateways' ports once they listen."""
    engine(ground)
    ports = [free_port() for _ in range(gateways)]
    for port, made in [(port, gateway(ground, port)) for port in ports]:
        until(partial(listens, port), "A gateway does not start", 60, made.log)
    return ports
