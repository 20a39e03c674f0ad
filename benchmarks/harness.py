"""What every benchmark shares: the machine, the commit, and how its figures are written.

A benchmark is `python -m benchmarks.<name>`; it prints whatever helps a reader and ends with `report()`, whose last
line is one JSON object. BENCH_QUICK=1 asks for a short run whose figures are not for publishing.
"""

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STARTED = time.monotonic()
QUICK = os.environ.get("BENCH_QUICK", "") == "1"


def machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB) and one-minute load: what a figure depends on."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The commit the figures belong to, with `+` when the tree differs from it; empty outside a clone."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def report(name: str, figures: dict[str, Any], **facts: Any) -> Path:
    """Writes var/bench/<name>.json and prints the same object as the last line."""
    record = {
        "bench": name,
        "quick": QUICK,
        "seconds": round(time.monotonic() - STARTED, 1),
        "commit": commit(),
        "figures": figures,
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }
    path = ROOT / "var" / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(record, ensure_ascii=False))
    return path
