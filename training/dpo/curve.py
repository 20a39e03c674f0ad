"""The learning curve of a run, written while it is trained. Imported after transformers may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.dpo import artifacts

NAMES = {
    "loss": "loss",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "learning_rate": "learning_rate",
}


class Curve(TrainerCallback):  # type: ignore[misc]  # transformers is not read by mypy
    """Appends one JSON line per logged point to `path`: `{"step", "split", "loss", "reward_margin", ...}`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **ignored: Any,
    ) -> None:
        split, values = point(logs or {})
        if "loss" not in values:
            return  # the closing summary of run times
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, "split": split, **values}) + "\n")
        if split == "train":
            artifacts.say("train", state.global_step, state.max_steps, loss=values["loss"])


def point(logs: dict[str, float]) -> tuple[str, dict[str, float]]:
    """The split and our names for what TRL logged; what we do not show is left out."""
    heldout = any(name.startswith("eval_") for name in logs)
    plain = {name.removeprefix("eval_"): value for name, value in logs.items()}
    return ("heldout" if heldout else "train"), {ours: float(plain[its]) for its, ours in NAMES.items() if its in plain}
