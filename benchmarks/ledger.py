"""`make bench NAME=ledger`: does the ledger hold when callers race, processes die and Redis loses what it knew?

Parts run one after the other, each in its own process with its own Redis and database, and each keeps its result in
`var/bench/ledger-parts/`: a run that was cut goes on where it was. ARGS="--fresh" measures everything again,
ARGS="--part race" one part. BENCH_QUICK=1 takes small numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.ledger_parts.stand import Database

PARTS = ("race", "events", "copy", "pages", "revocation", "cost")
KEPT = harness.ROOT / "var" / "bench" / "ledger-parts"
TARGETS: dict[str, float | None] = {
    "overspend_nanodollars": 0,
    "limit_overshoot": 0,
    "lost": 0,
    "doubled": 0,
    "misstated": 0,
    "copy_ratio": 12,
    "event_tx_ratio": None,
    "page_growth": 1.5,
    "page_queries": 12,
    "prove_s": None,
    "revocation_p99_ms": 1000,
    "admit_cpu_us": None,
    "redis_us": None,
}
Part = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    wanted = arguments(argv)
    database = Database()
    if not database.postgres:
        if not harness.QUICK:
            raise SystemExit("The full run compares with PostgreSQL's COPY. Set DATABASE_URL to a PostgreSQL server.")
        print("No PostgreSQL answers at DATABASE_URL: SQLite instead, and copy_ratio is not measured.", flush=True)
    parts = run(wanted, database)
    found = {name: value for part in parts.values() for name, value in part["figures"].items() if name in TARGETS}
    table(found)
    harness.report("ledger", found, parts=parts)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench NAME=ledger", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace, database: Database) -> dict[str, Part]:
    """Each part's result, measured or kept; the template database lives as long as this takes."""
    parts: dict[str, Part] = {}
    with tempfile.TemporaryDirectory(prefix="paramstack-ledger-") as directory:
        try:
            for name in [wanted.part] if wanted.part else PARTS:
                if name == "copy" and not database.postgres:
                    continue
                part = None if wanted.fresh else kept(name)
                if part:
                    print(f"{name}: kept from {part['at']}", flush=True)
                else:
                    if not database.template:
                        database.migrate(Path(directory))
                    part = measured(name, database, directory)
                parts[name] = part
        finally:
            database.close()
    return parts


def kept(name: str) -> Part | None:
    """What an earlier run of this commit and size measured."""
    try:
        part: Part = json.loads((KEPT / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return part if (part["commit"], part["quick"]) == (harness.commit(), harness.QUICK) else None


def measured(name: str, database: Database, directory: str) -> Part:
    """Runs a part in its own process, which writes its file; ends the run if it fails."""
    print(f"{name} ...", flush=True)
    path = KEPT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.ledger_parts", name, database.template, str(path)]
    env = os.environ | {"TMPDIR": directory}  # goes with this process, however the part ends
    if subprocess.run(command, cwd=harness.ROOT, env=env).returncode or not path.exists():
        raise SystemExit(f"The part {name} failed. The parts before it are kept; the same command goes on with it.")
    part: Part = json.loads(path.read_text())
    print(f"{name}: {json.dumps(part['figures'])} in {part['seconds']:.0f} s", flush=True)
    return part


def table(found: dict[str, float]) -> None:
    print(f"\n{'figure':24} {'measured':>14} {'target':>8}")
    for name, value in found.items():
        target = TARGETS[name]
        verdict = "" if target is None else "reached" if value <= target else "MISSED"
        print(f"{name:24} {value:>14,} {'' if target is None else f'<= {target:g}':>8}  {verdict}")


if __name__ == "__main__":
    main()
