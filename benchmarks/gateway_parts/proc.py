"""CPU and memory of a server with all its processes, as Linux tells them: proc(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")  # of utime and stime, per second


def cpu_seconds(root: int) -> float:
    """User and system time of a process and its descendants, also of those that ended and were waited for."""
    stats = _stats()
    family = descendants({pid: stat.parent for pid, stat in stats.items()}, root)
    return sum(stats[pid].ticks for pid in family) / TICK


def machine_seconds() -> float:
    """What all processors of the machine worked, for whomever, and what a host took from them (steal)."""
    user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    return (user + nice + system + sum(interrupts)) / TICK


def rss_kb(pid: int) -> int:
    """Resident memory of one process in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"{pid} has no memory any more")


class Stat:
    """Of /proc/PID/stat: the parent, and utime + stime + cutime + cstime in ticks."""

    __slots__ = ("parent", "ticks")

    def __init__(self, text: str) -> None:
        fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
        self.parent = int(fields[1])
        self.ticks = sum(int(field) for field in fields[11:15])


def descendants(parents: Mapping[int, int], root: int) -> set[int]:
    """`root` and everything below it; `parents` gives each process's parent."""
    found = {root} & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _stats() -> dict[int, Stat]:
    return {pid: Stat(text) for pid, text in _texts(int(name) for name in os.listdir("/proc") if name.isdigit())}


def _texts(pids: Iterable[int]) -> Iterable[tuple[int, str]]:
    for pid in pids:
        try:
            yield pid, Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
