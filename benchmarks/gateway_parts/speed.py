"""speed: CPU of one call, calls a second and time to the first chunk: ours, LiteLLM's proxy and nginx in turn.

Rounds of windows, each one server and one kind of call, 16 connections; who begins changes from round to round. The CPU
of a window is that of the server with its children (proc(5)), its Redis apart; figures are ratios of medians over the
rounds. A window begins when the ledger writer has nothing left to do of the one before.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import harness
from benchmarks.gateway_parts import proc, programs, servers
from benchmarks.gateway_parts.servers import Server
from benchmarks.ledger_parts.stand import NotThere, Stand, say
from tenants.models import UsageEvent

CLIENTS = 16
KINDS = {"json": False, "sse": True}


@dataclass(frozen=True)
class Size:
    """Seconds by server; `first_calls` for the time to the first chunk, at one connection."""

    rounds: int
    seconds: Mapping[str, float]
    warm: float
    first_rounds: int
    first_calls: Mapping[str, int]


FULL = Size(7, {"ours": 3, "litellm": 6, "nginx": 2}, 2, 5, {"ours": 300, "litellm": 60, "nginx": 300})
QUICK = Size(1, {"ours": 0.7, "litellm": 1.5, "nginx": 0.5}, 0.3, 1, {"ours": 30, "litellm": 8, "nginx": 30})


@dataclass(frozen=True)
class Window:
    """Microseconds of CPU of one call: of the server, its Redis, and what works beside it (ours: the ledger writer).

    `others` are the cores that were busy with what is none of the bench's own processes (and with its PostgreSQL).
    """

    server: str
    kind: str
    calls: int
    cpu_us: float
    redis_us: float
    beside_us: float
    rps: float
    p50_ms: float
    p99_ms: float
    others: float = 0.0


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    size = QUICK if quick else FULL
    port = servers.engine_port(ground)
    programs.upstream(ground, port)
    peer = servers.litellm(ground, port)  # takes longest to start
    mine = servers.ours(ground)
    compared = [mine, *([peer] if peer else []), servers.nginx(ground, port)]
    for server in compared:
        servers.await_server(server)
    facts: dict[str, Any] = {"litellm": litellm_version()}
    if peer:
        facts["litellm_limits"] = servers.litellm_limits(peer)
        say(f"LiteLLM with a limit of {servers.SMALL_LIMIT}: {facts['litellm_limits']}")
    else:
        say("LiteLLM is not installed (make peers NAME=litellm): its figures are not measured")
    facts["redis_commands_per_call"] = {server.name: warm_up(server, size.warm) for server in compared}
    windows = run(compared, size, port)
    firsts = first_chunks(compared, size)
    mine.rest()
    facts["usage_events"] = UsageEvent.objects.filter(source="gateway").count()
    facts |= {"absolute": absolute(windows), "ttfc_ms": {name: harness.spread(all_) for name, all_ in firsts.items()}}
    say(f"commands that its Redis runs for a call: {facts['redis_commands_per_call']}")
    tell(facts)
    return figures(windows, firsts), facts


def run(compared: Sequence[Server], size: Size, upstream: int) -> list[Window]:
    windows = []
    for turn in range(size.rounds):
        order = [*compared[turn % len(compared) :], *compared[: turn % len(compared)]]
        for kind in KINDS:
            for server in order:
                windows.append(window(server, kind, size.seconds[server.name], upstream))
    return windows


def warm_up(server: Server, seconds: float) -> float:
    """Both kinds of call; answers how many commands its Redis runs for a call, those inside of scripts included."""
    before, calls = server.commands(), 0
    for stream in KINDS.values():
        told = programs.load(server.port, server.key, server.model, stream=stream, clients=CLIENTS, seconds=seconds)
        calls += told["completed"]
    return round((server.commands() - before) / calls, 2)


def window(server: Server, kind: str, seconds: float, upstream: int) -> Window:
    """One server, one kind of call; raises NotThere if the upstream did not see every call."""
    server.rest()
    before, served, foreign, began = server.cpu(), served_by(upstream), foreign_seconds(), time.monotonic()
    told = programs.load(server.port, server.key, server.model, stream=KINDS[kind], clients=CLIENTS, seconds=seconds)
    after, others = server.cpu(), (foreign_seconds() - foreign) / (time.monotonic() - began)
    calls = told["completed"]
    if served_by(upstream) - served != calls:
        raise NotThere(f"{server.name} answered {calls} calls, the upstream {served_by(upstream) - served}")
    server.rest()
    cpu, store, _ = per_call(before, after, calls)
    beside = per_call(before, server.cpu(), calls)[2]  # also what it did when the window was over
    rate = round(calls / told["seconds"], 1)
    times = told["p50_ms"], told["p99_ms"]
    return Window(server.name, kind, calls, cpu, store, beside, rate, *times, round(others, 2))


def foreign_seconds() -> float:
    """CPU of everything on this machine but this process and its descendants."""
    return proc.machine_seconds() - proc.cpu_seconds(os.getpid())


def served_by(upstream: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{upstream}/served") as reply:
        return int(json.load(reply)["served"])


def per_call(before: Iterable[float], after: Iterable[float], calls: int) -> list[float]:
    """Microseconds of each kind of CPU, given in seconds."""
    return [round((late - early) / calls * 1e6, 2) for early, late in zip(before, after, strict=True)]


def first_chunks(compared: Sequence[Server], size: Size) -> dict[str, list[float]]:
    """By server the median of each round, ms from the request to the body's first byte, one call at a time."""
    found: dict[str, list[float]] = {server.name: [] for server in compared}
    for _ in range(size.first_rounds):
        for server in compared:
            server.rest()
            most = size.first_calls[server.name]
            one = {"stream": True, "clients": 1, "seconds": 30.0, "most": most}
            told = programs.load(server.port, server.key, server.model, **one)  # type: ignore[arg-type]
            found[server.name].append(told["ttfc_ms"])
    return found


def figures(windows: Sequence[Window], firsts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Ratios of medians; those with LiteLLM only where it was measured."""

    def typical(server: str, kind: str, *fields: str) -> float:
        found = [window for window in windows if (window.server, window.kind) == (server, kind)]
        return float(median(sum(getattr(window, field) for field in fields) for window in found))

    found = {"redis_us": typical("ours", "json", "redis_us")}
    found["nginx_cpu_ratio"] = typical("ours", "json", "cpu_us") / typical("nginx", "json", "cpu_us")
    if "litellm" in firsts:
        for kind in KINDS:
            ratio = typical("litellm", kind, "cpu_us") / typical("ours", kind, "cpu_us")
            found[f"litellm_cpu_ratio_{kind}"] = ratio
        both = ("cpu_us", "redis_us")
        found["total_cpu_ratio_json"] = typical("litellm", "json", *both) / typical("ours", "json", *both)
        found["litellm_rps_ratio"] = typical("ours", "json", "rps") / typical("litellm", "json", "rps")
        found["ttfc_ratio"] = median(firsts["litellm"]) / median(firsts["ours"])
    return {name: round(value, 2) for name, value in found.items()}


MEASURED = ("cpu_us", "redis_us", "beside_us", "rps", "p50_ms", "p99_ms", "others")


def absolute(windows: Sequence[Window]) -> dict[str, dict[str, Any]]:
    """By server and kind: median, least and most of what was measured."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys((window.server, window.kind) for window in windows):
        these = [window for window in windows if (window.server, window.kind) == name]
        spreads = {field: harness.spread([getattr(window, field) for window in these]) for field in MEASURED}
        found[" ".join(name)] = {"calls": sum(window.calls for window in these)} | spreads
    return found


def tell(facts: Mapping[str, Any]) -> None:
    heads = f"{'CPU us (min - max)':>28} {'Redis':>7} {'beside':>7} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8} others"
    say(f"{'':18} {heads}")
    for name, one in facts["absolute"].items():
        cpu = "{median:,.1f} ({min:,.1f} - {max:,.1f})".format(**one["cpu_us"])
        store, beside, rps, p50, p99, others = (one[field]["median"] for field in MEASURED[1:])
        say(f"{name:18} {cpu:>28} {store:>7,.1f} {beside:>7,.1f} {rps:>9,.1f} {p50:>8.2f} {p99:>8.2f} {others:>6.2f}")
    for name, one in facts["ttfc_ms"].items():
        say(f"{name}: first chunk after {one['median']} ms ({one['min']} - {one['max']}) at one connection")


def litellm_version() -> str:
    return (servers.PEERS / "litellm.txt").read_text().split()[0]
