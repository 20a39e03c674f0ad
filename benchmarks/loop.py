"""`make bench NAME=loop`: how long a newcomer waits, and whether the loop really learned.

Parts, each kept when it is done so that a run that was cut goes on: three runs of `manage.py demo --exit` on an empty
`var` (wall and CPU seconds of all its processes) with a second start on kept data; `manage.py check` and what it
imports; the fast tests; all tests that need nothing else. BENCH_QUICK=1 takes `manage.py check` alone: the loop itself
does not fit a minute.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "var" / "bench" / "loop.parts.json"
RUNS = 3
TARGETS = {
    "loop_s": "<= 240",
    "loop_cpu_s": "",
    "second_start_s": "<= 15",
    "check_s": "<= 1",
    "fast_tests_s": "<= 60",
    "test_minutes": "<= 10",
    "demo_reward_accuracy": ">= 0.8",
    "demo_pairs_heldout": ">= 40",
}
HEAVY = {"torch", "anthropic", "transformers"}


def main() -> None:
    parts: dict[str, Any] = {}
    if not harness.QUICK and PARTS.exists():
        parts = json.loads(PARTS.read_text())
        if parts.get("commit") != harness.commit():  # parts of another tree are no parts of this run
            parts = {}
    parts["commit"] = harness.commit()
    for name, measure in plan().items():
        if name in parts:
            print(f"{name}: kept from the run that was cut", flush=True)
            continue
        print(f"{name} ...", end=" ", flush=True)
        parts[name] = measure()
        print(json.dumps(parts[name]), flush=True)
        PARTS.parent.mkdir(parents=True, exist_ok=True)
        if not harness.QUICK:
            PARTS.write_text(json.dumps(parts))
    found = figures(parts)
    print(f"\n{'figure':24} {'measured':>12}  target")
    for name, value in found.items():
        print(f"{name:24} {value:>12}  {TARGETS.get(name, '')}")
    PARTS.unlink(missing_ok=True)
    harness.report("loop", found, parts=parts)


def plan() -> dict[str, Callable[[], dict[str, Any]]]:
    if harness.QUICK:
        return {"check": check}
    loops = {f"loop {number}": demo for number in range(1, RUNS + 1)}
    return {**loops, "check": check, "fast tests": lambda: tests("test-fast"), "all tests": lambda: tests("test")}


def figures(parts: dict[str, Any]) -> dict[str, float]:
    """The figures of the parts that were measured; medians over the loops."""
    loops = [part for name, part in parts.items() if name.startswith("loop ")]
    found: dict[str, float] = {}
    for name in ("loop_s", "loop_cpu_s", "second_start_s"):
        if loops:
            found[name] = round(statistics.median(part[name] for part in loops), 1)
    if loops:
        found["demo_reward_accuracy"] = round(min(part["demo_reward_accuracy"] for part in loops), 4)
        found["demo_pairs_heldout"] = min(part["demo_pairs_heldout"] for part in loops)
    found["check_s"] = round(parts["check"]["seconds"], 2)
    found["check_heavy_imports"] = len(parts["check"]["heavy_imports"])
    if "fast tests" in parts:
        found["fast_tests_s"] = round(parts["fast tests"]["seconds"], 1)
        found["test_minutes"] = round(parts["all tests"]["seconds"] / 60, 2)
    return found


def demo() -> dict[str, Any]:
    """One loop on an empty `var`, then a second start that keeps the data."""
    var = Path(tempfile.mkdtemp(prefix="paramstack-bench-"))
    argv = [sys.executable, "manage.py", "demo", "--exit"]
    try:
        wall, cpu = timed(argv, environment(var))
        again, _ = timed(argv, environment(var))
        told = json.loads((var / "demo.json").read_text())
    finally:
        shutil.rmtree(var, ignore_errors=True)
    stages = {name: value for name, value in told.items() if name.endswith("_s")}
    learned = {name: told[name] for name in ("demo_reward_accuracy", "demo_pairs_heldout")}
    return {"loop_s": wall, "loop_cpu_s": cpu, "second_start_s": again, **learned, "stages": stages}


def check() -> dict[str, Any]:
    """Median of five `manage.py check`, and which heavy libraries it imported (there should be none)."""
    with tempfile.TemporaryDirectory(prefix="paramstack-bench-") as var:
        env = environment(Path(var))
        argv = ["manage.py", "check"]
        walls = [timed([sys.executable, *argv], env)[0] for _ in range(6)][1:]  # the first writes bytecode
        traced = [sys.executable, "-X", "importtime", *argv]
        lines = subprocess.run(traced, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in lines.splitlines() if "|" in line}
    return {"seconds": statistics.median(walls), "heavy_imports": sorted(imported & HEAVY)}


def tests(target: str) -> dict[str, Any]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PIP_INDEX_URL") if name in os.environ}
    subprocess.run(["make", "install-dev"], cwd=ROOT, env=kept, check=True, stdout=subprocess.DEVNULL)
    return {"seconds": timed(["make", target], kept)[0]}


def environment(var: Path) -> dict[str, str]:
    """What a fresh shell has, a `var` of its own and two free ports."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PARAMSTACK_VAR": str(var), "PORT": str(free_port()), "ENGINE_PORT": str(free_port())}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def timed(argv: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all its descendants; ends with the command's last lines when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        code = subprocess.run(argv, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT).returncode
        wall = time.monotonic() - started
        output.seek(0)
        tail = output.read().splitlines()[-40:]
    if code:
        raise SystemExit(f"{' '.join(argv)} ended with {code}:\n" + "\n".join(tail))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
