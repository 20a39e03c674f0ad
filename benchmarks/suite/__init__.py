"""A benchmark in parts: each runs in its own process with its own Redis and database and is kept when it is done.

A run that was cut goes on where it was: `var/bench/<name>-parts/` has what was measured for this commit and size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.ledger_parts.stand import Database

KEPT = harness.ROOT / "var" / "bench"
Part = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """`parts` names each part's module, `targets` each figure's target as `<= 12` or `>= 60`, empty for none."""

    name: str
    about: str
    parts: Mapping[str, str]
    targets: Mapping[str, str]

    def arguments(self, argv: list[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(prog=f"make bench NAME={self.name}", description=self.about)
        parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
        parser.add_argument("--part", choices=list(self.parts), help="only this one")
        return parser.parse_args(argv)

    def run(self, wanted: argparse.Namespace, database: Database, leave_out: frozenset[str] = frozenset()) -> None:
        """Measures what is not kept, prints the table, writes the report."""
        parts = self.measure(wanted, database, leave_out)
        found = {key: value for part in parts.values() for key, value in part["figures"].items() if key in self.targets}
        table(found, self.targets)
        harness.report(self.name, found, parts=parts)

    def measure(
        self, wanted: argparse.Namespace, database: Database, leave_out: frozenset[str] = frozenset()
    ) -> dict[str, Part]:
        """Each part's result, measured or kept; the template database lives as long as this takes."""
        parts: dict[str, Part] = {}
        with tempfile.TemporaryDirectory(prefix=f"paramstack-{self.name}-") as directory:
            try:
                for name in [wanted.part] if wanted.part else self.parts:
                    if name in leave_out:
                        continue
                    part = None if wanted.fresh else self.kept(name)
                    if part:
                        print(f"{name}: kept from {part['at']}", flush=True)
                    else:
                        if not database.template:
                            database.migrate(Path(directory))
                        part = self.measured(name, database, directory)
                    parts[name] = part
            finally:
                database.close()
        return parts

    def file(self, part: str) -> Path:
        return KEPT / f"{self.name}-parts" / f"{part}.json"

    def kept(self, name: str) -> Part | None:
        """What an earlier run of this commit and size measured."""
        try:
            part: Part = json.loads(self.file(name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return part if (part["commit"], part["quick"]) == (harness.commit(), harness.QUICK) else None

    def measured(self, name: str, database: Database, directory: str) -> Part:
        """Runs a part in its own process, which writes its file; ends the run if it fails."""
        print(f"{name} ...", flush=True)
        path = self.file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.suite", self.parts[name], database.template, str(path)]
        env = os.environ | {"TMPDIR": directory}  # goes with this process, however the part ends
        if subprocess.run(command, cwd=harness.ROOT, env=env).returncode or not path.exists():
            raise SystemExit(f"The part {name} failed. The parts before it are kept; the same command goes on with it.")
        part: Part = json.loads(path.read_text())
        print(f"{name}: {json.dumps(part['figures'])} in {part['seconds']:.0f} s", flush=True)
        return part


def reached(value: float, target: str) -> bool:
    """Whether a figure is where `target`, as `<= 12` or `>= 60`, wants it."""
    sign, number = target.split()
    return value <= float(number) if sign == "<=" else value >= float(number)


def table(found: Mapping[str, float], targets: Mapping[str, str]) -> None:
    print(f"\n{'figure':24} {'measured':>14} {'target':>8}")
    for name, value in found.items():
        target = targets[name]
        verdict = "" if not target else "reached" if reached(value, target) else "MISSED"
        print(f"{name:24} {value:>14,} {target:>8}  {verdict}")
