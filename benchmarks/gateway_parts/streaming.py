"""streams: what an open stream costs in memory, and how long the gateway's loop stands still while many flow.

2,000 streams of two events a second each are opened through one gateway. Memory is the growth of its resident set per
stream, from a warm process without streams. The loop is looked at from outside: GET /healthz, which asks nothing of
anybody, each 5 ms on one kept connection; the stall is the longest latency less the median. Whatever the machine itself
holds up is in it: the same probe before the streams are open says how much that is.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.gateway_parts import proc, programs, servers
from benchmarks.gateway_parts.servers import Server
from benchmarks.ledger_parts.stand import Process, Stand, say, until

GAP_US = 500_000
INTERVAL_US = 5_000
EVENTS = 400  # of a stream: it lasts longer than the part


@dataclass(frozen=True)
class Size:
    """`probe` is in seconds: calls under way are renewed each ten seconds, and the probe should see that."""

    streams: int
    probe: float
    idle: float


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    size = Size(200, 2, 1) if quick else Size(2_000, 30, 10)
    _open_files(3 * size.streams + 1_000)
    programs.upstream(ground, servers.engine_port(ground), EVENTS, GAP_US)
    server = servers.ours(ground)
    servers.await_server(server)
    programs.load(server.port, server.key, server.model, stream=False, clients=16, seconds=0.5 if quick else 3)
    server.rest()
    idle = _probe(server, size.idle)
    before = proc.rss_kb(server.process.pid)
    held = programs.program(ground, "hold", server.port, size.streams, server.key, server.model)
    until(lambda: _told(held)[0] == size.streams, "The streams do not open", 60, held.log)
    time.sleep(1 if quick else 5)
    opened = proc.rss_kb(server.process.pid)
    flowing, share = _watched(server, size.probe)
    after = proc.rss_kb(server.process.pid)
    open_streams, ended, _ = _told(held)
    until(lambda: _told(held)[0] == size.streams and not ended, f"{ended} of {open_streams} streams ended", 1, held.log)
    held.kill()
    stall = flowing["longest_ms"] - flowing["median_ms"]
    say(f"{size.streams:,} streams: {before:,} kB before, {opened:,} kB with them, {after:,} kB {size.probe:g} s later")
    say(f"probe with streams {flowing}, without {idle}; the gateway took {share:.0%} of a core")
    facts = {"streams": size.streams, "rss_kb": [before, opened, after], "probe": flowing, "probe_idle": idle}
    figures = {"stream_kb": round((after - before) / size.streams, 1), "loop_stall_ms": round(stall, 1)}
    return figures, facts | {"cpu_share": round(share, 3), "events_per_second": size.streams * 1e6 / GAP_US}


def _watched(server: Server, seconds: float) -> tuple[dict[str, Any], float]:
    """What the probe says, and the share of a core that the gateway takes meanwhile."""
    spent, began = proc.cpu_seconds(server.process.pid), time.monotonic()
    told = _probe(server, seconds)
    return told, (proc.cpu_seconds(server.process.pid) - spent) / (time.monotonic() - began)


def _probe(server: Server, seconds: float) -> dict[str, Any]:
    return programs.run("probe", server.port, INTERVAL_US, seconds)


def _told(held: Process) -> tuple[int, int, int]:
    """Streams with a header, streams that ended, bytes: the last whole line that `hold` printed."""
    lines = held.log.read_text().rpartition("\n")[0].splitlines()
    numbers = [int(word) for word in lines[-1].split()] if lines and lines[-1][:1].isdigit() else [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


def _open_files(wanted: int) -> None:
    """Raises this process's bound, which its children inherit, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
