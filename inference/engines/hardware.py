"""What an engine can run on, asked of `nvidia-smi`, and what suits it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

QUERY = ["--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
CPU_HEADS = frozenset((32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512))  # sizes that vLLM's attention on a CPU knows


@dataclass(frozen=True, slots=True)
class Hardware:
    """GPUs of one machine: their names, and memory (GiB each) and compute capability of the least of them. No names: a
    CPU, `wide` if it has AVX-512."""

    names: tuple[str, ...] = ()
    memory_gib: float = 0.0
    capability: tuple[int, int] = (0, 0)
    wide: bool = False

    @property
    def is_cpu(self) -> bool:
        return not self.names

    @property
    def is_mixed(self) -> bool:
        return len(set(self.names)) > 1

    def __str__(self) -> str:
        if self.is_cpu:
            return "CPU"
        return f"{len(self.names)} x {' + '.join(dict.fromkeys(self.names))}, {self.memory_gib:.0f} GiB"


@dataclass(frozen=True, slots=True)
class Preset:
    """Where to start on a kind of hardware: number type, sequences at once, adapters in one batch at most, share of the
    GPU's memory that is vLLM's (on a CPU: GiB for the cache of keys and values)."""

    name: str
    dtype: str
    sequences: int
    slots: int
    memory: float


CPU = Preset("CPU", "float32", 16, 16, 2)
OTHER = Preset("GPU", "bfloat16", 128, 8, 0.90)
PRESETS = (
    Preset("T4", "float16", 64, 4, 0.90),
    Preset("L40", "bfloat16", 256, 16, 0.90),
    Preset("L4", "bfloat16", 128, 8, 0.90),
    Preset("A100", "bfloat16", 256, 16, 0.92),
    Preset("A10", "bfloat16", 128, 8, 0.90),
    Preset("H100", "bfloat16", 512, 32, 0.92),
    Preset("H200", "bfloat16", 1024, 32, 0.92),
)


def preset(hardware: Hardware) -> Preset:
    """That of the card's name; of another card, one that any of vLLM's GPUs bears."""
    if hardware.is_cpu:
        return CPU
    words = hardware.names[0].replace("-", " ").split()
    for one in PRESETS:
        if any(word.startswith(one.name) for word in words):
            return one
    return OTHER if hardware.capability >= (8, 0) else PRESETS[0]


def detect() -> Hardware:
    """This machine's; a CPU where nvidia-smi is missing, fails or finds nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return cpu()
    try:
        found = subprocess.run([program, *QUERY], capture_output=True, text=True, timeout=20)  # noqa: S603  (no shell)
    except (OSError, subprocess.TimeoutExpired):
        return cpu()
    return (parse(found.stdout) if found.returncode == 0 else None) or cpu()


def cpu() -> Hardware:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    return Hardware(wide="avx512f" in flags)


def parse(text: str) -> Hardware | None:
    """The GPUs in nvidia-smi's answer to QUERY, a line each; None where a line is none."""
    names, memory, capabilities = [], [], []
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            name, mebibytes, capability = (part.strip() for part in line.rsplit(",", 2))
            major, minor = capability.split(".")
            memory.append(float(mebibytes) / 1024)
            capabilities.append((int(major), int(minor)))
        except ValueError:
            return None
        names.append(name)
    return Hardware(tuple(names), min(memory), min(capabilities)) if names else None
