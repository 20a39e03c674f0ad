"""The bench's own C programs, an engine and callers that cost next to nothing: each says its usage at its top."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.ledger_parts.stand import NotThere, Process, Stand, listens, until

SOURCES = Path(__file__).parent
BUILT = harness.ROOT / "var" / "bench" / "programs"
MOST_CALLS = 1_000_000


def built(name: str) -> str:
    """The program's path, compiled when its source is newer."""
    source, program = SOURCES / f"{name}.c", BUILT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        if not shutil.which("gcc"):
            raise NotThere("The bench compiles its load generator: install gcc")
        BUILT.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return str(program)


def program(ground: Stand, name: str, *words: object) -> Process:
    """One of them as a process of the part, started."""
    made = Process([built(name), *map(str, words)], ground.env, ground.directory / f"{name}.log")
    ground.processes.append(made)
    made.start()
    return made


def upstream(ground: Stand, port: int, chunks: int = 20, gap_us: int = 0, failures: int = 0, seed: int = 1) -> Process:
    made = program(ground, "upstream", port, chunks, gap_us, failures, seed)
    until(lambda: listens(port), "The upstream does not start", 10, made.log)
    return made


def load(
    port: int, key: str, model: str, *, stream: bool, clients: int, seconds: float, most: int = MOST_CALLS
) -> dict[str, Any]:
    """What `load` measured; raises NotThere if one answer did not come as it should."""
    told = run("load", port, clients, seconds, int(stream), key, model, most)
    if told["bad"] or told["failed"] or told["unanswered"] or not told["completed"]:
        raise NotThere(f"The server on port {port} did not answer every call: {told}")
    return told


def run(name: str, *words: object) -> dict[str, Any]:
    """Runs one to its end; answers the JSON object that it printed."""
    done = subprocess.run([built(name), *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise NotThere(f"{name} failed: {done.stderr.strip()}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
