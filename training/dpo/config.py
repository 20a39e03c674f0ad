"""What one DPO run needs to know: read from a JSON file, checked before anything heavy is imported.

The rule: a mistake a person can make ends here, as a `Refusal` with one sentence. TRL's own defaults stay out of sight;
every value below is one we chose, and `docs` of TRL 1.16 `DPOConfig` gives the meaning of each.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOSS_TYPES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "apo_zero", "apo_down", "nca_pair", "sppo_hard")


class Refusal(Exception):
    """Work that cannot start or go on. `str(refusal)` is one clear sentence for a person."""


@dataclass(frozen=True)
class Config:
    """One run. Paths are local; `base_model` is a directory or a Hugging Face id; lengths are tokens."""

    base_model: str
    train: str
    output_dir: str
    heldout: str = ""  # no curve on held-out pairs, and no evaluation, without it
    base_name: str = ""  # what adapter_config.json says; never a path of this machine
    base_digest: str = ""  # of the base model's files, for the known answers; empty: not known
    epochs: float = 2
    beta: float = 0.1
    learning_rate: float = 0.0  # 0: by the size of the base model, `rate_for`
    rank: int = 8
    alpha: int = 16
    per_device_batch: int = 8
    gradient_accumulation: int = 1
    max_length: int = 512  # prompt and answer together
    seed: int = 7
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    logging_steps: int = 2
    target_modules: list[str] = field(default_factory=list)  # empty: every linear layer but the output head
    samples: int = 6  # answers shown side by side by the evaluation
    sample_tokens: int = 96

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """The base model's public name: `base_name`, a hub id, or the last part of a local path."""
        local = Path(self.base_model).exists() or Path(self.base_model).is_absolute()
        return self.base_name or (Path(self.base_model).name if local else self.base_model)

    @property
    def output(self) -> Path:
        return Path(self.output_dir)

    @property
    def adapter(self) -> Path:
        return self.output / "adapter"


def rate_for(parameters: int) -> float:
    """A learning rate that suits LoRA on a model of so many parameters: small ones need, and bear, much more."""
    return 3e-3 if parameters < 10_000_000 else 2e-4 if parameters < 500_000_000 else 2e-5


def read(path: str | Path) -> Config:
    """The configuration in a JSON file. Raises `Refusal` for a missing file, bad JSON, unknown or impossible values."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"There is no configuration file {path}.") from None
    except ValueError as error:
        raise Refusal(f"{path} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise Refusal(f"{path} must hold one JSON object.")
    return build(values)


def build(values: dict[str, Any]) -> Config:
    """A configuration from plain values; raises `Refusal` as `read` does."""
    fields = {f.name: f for f in dataclasses.fields(Config)}
    if unknown := sorted(set(values) - set(fields)):
        raise Refusal(f"The configuration has unknown settings: {', '.join(unknown)}.")
    needed = {name for name, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(needed - set(values)):
        raise Refusal(f"The configuration lacks: {', '.join(missing)}.")
    return Config(**values)


def _check(config: Config) -> None:
    _check_types(config)
    above_zero = ("epochs", "beta", "rank", "alpha", "per_device_batch", "gradient_accumulation")
    for name in (*above_zero, "logging_steps"):
        if not getattr(config, name) > 0:
            raise Refusal(f"{name} must be above 0; it is {getattr(config, name)}.")
    if config.learning_rate < 0:
        raise Refusal(f"learning_rate must be above 0, or 0 to choose by size; it is {config.learning_rate}.")
    if config.max_length < 16:
        raise Refusal(f"max_length must be at least 16 tokens; it is {config.max_length}.")
    if config.loss_type not in LOSS_TYPES:
        raise Refusal(f"loss_type must be one of {', '.join(LOSS_TYPES)}; it is {config.loss_type}.")
    if not 0 <= config.label_smoothing < 0.5:
        raise Refusal(f"label_smoothing must lie in [0, 0.5); it is {config.label_smoothing}.")


def _check_types(config: Config) -> None:
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "list[str]": (list,)}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if isinstance(value, bool) or not isinstance(value, kinds[str(f.type)]):
            raise Refusal(f"{f.name} must be a {f.type}; it is {json.dumps(value, default=str)}.")
