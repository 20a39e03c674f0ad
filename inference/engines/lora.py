"""What a LoRA adapter's directory must be before an engine is asked to take it. Pure.

Engines say it after minutes, or not at all: vLLM loads an adapter of another base model of the same shape without a
word. Weights are safetensors only: a pickle runs what its author likes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from inference.engines import known
from inference.engines.vllm import RANKS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SUFFIXES = (".json", ".safetensors", ".md", ".txt", ".jinja")
MOST_CONFIG = 1 << 20  # bytes


class Unsound(ValueError):
    """No engine of ours would serve it; says why, and what to do."""


class Facts(NamedTuple):
    rank: int
    known: known.Known


def check(path: Path | str, base: str, base_digest: str) -> Facts:
    """What an engine has to know of the adapter in `path`, made for the base model `base`; raises Unsound, OSError."""
    root = Path(path)
    for file in (one for one in root.rglob("*") if one.is_file()):
        if file.suffix not in SUFFIXES:
            raise Unsound(f"{file.name} is no file of an adapter. Weights are kept as safetensors.")
    for name in (CONFIG, WEIGHTS, known.NAME):
        if not (root / name).is_file():
            raise Unsound(f"{name} is missing. The training program writes it; train the adapter again.")
    return Facts(_rank(_config(root / CONFIG), base), _known(root / known.NAME, base, base_digest))


def _config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(MOST_CONFIG))
    except ValueError as error:
        raise Unsound(f"{CONFIG} is not JSON: {error}.") from error
    if not isinstance(told, dict):
        raise Unsound(f"{CONFIG} is no JSON object.")
    return told


def _rank(config: dict[str, Any], base: str) -> int:
    """Its rank, if it is a plain LoRA for `base`."""
    if config.get("peft_type") != "LORA":
        raise Unsound(f"{CONFIG} says {config.get('peft_type')!r}; only LORA is served.")
    if config.get("base_model_name_or_path") != base:
        made_for = config.get("base_model_name_or_path")
        raise Unsound(f"It was made for the base model {made_for!r}, not for {base}. Register it under that one.")
    rank = config.get("r")
    if type(rank) is not int or not 1 <= rank <= RANKS[-1]:
        raise Unsound(f"Its rank is {rank!r}; engines take 1 to {RANKS[-1]}.")
    unserved = {"modules_to_save": None, "use_dora": False, "bias": "none"}
    for name, plain in unserved.items():
        if config.get(name, plain) not in (plain, [], None):
            raise Unsound(f"{name} is {config[name]!r}; vLLM serves plain LoRA only. Train without it.")
    return rank


def _known(path: Path, base: str, base_digest: str) -> known.Known:
    try:
        found = known.parse(path.read_bytes())
    except known.Malformed as error:
        raise Unsound(f"{known.NAME}: {error}.") from error
    if found.base != base or (base_digest and found.base_digest and found.base_digest != base_digest):
        raise Unsound(f"Its known answers were recorded with other files than those of {base}. Train it again.")
    return found
