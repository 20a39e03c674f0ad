"""The training programs as children of a job: how they are started, what their lines mean, how they end badly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _

from training import jobs, processes
from training.models import Job
from training.problems import Problem

MENDABLE = 2  # the programs' exit code for "a person can mend this": their last sentence is the whole story


class ProgramFailed(Problem):
    """A training process ended badly. `code` is its exit code, `last` the last thing it said."""

    def __init__(self, code: int, lines: list[str]) -> None:
        self.code, self.lines = code, lines
        spoken = [line for line in lines if line.strip() and not line.startswith("{")]
        self.last = spoken[-1] if spoken else ""
        if code == MENDABLE and self.last:
            super().__init__(self.last)
        else:
            words = {"code": code, "last": self.last or "-"}
            super().__init__(_("Training ended with code %(code)d: %(last)s") % words)


def run(module: str, arguments: list[str], claim: jobs.Claim, on_line: Callable[[str], None] | None = None) -> None:
    """Runs one of the training programs to its end; its progress lines become the job's. Raises ProgramFailed."""
    directory = claim.job.directory

    def heard(line: str) -> None:
        if progress := progress_of(line):
            claim.beat(**progress)
        if on_line:
            on_line(line)

    code = processes.supervise([sys.executable, "-m", module, *arguments], claim, directory, heard)
    if code != 0:
        raise ProgramFailed(code, processes.log_tail(directory))


def progress_of(line: str) -> dict[str, Any]:
    """`stage`, `done` and `total` of a progress line of a training program; empty for any other line."""
    try:
        said = json.loads(line)
        return {"stage": str(said["stage"])[:40], "done": int(said["done"]), "total": int(said["total"])}
    except (ValueError, KeyError, TypeError):
        return {}


def log_tail(job: Job, count: int = processes.TAIL) -> list[str]:
    """The last lines a job's process said."""
    return processes.log_tail(job.directory, count)
