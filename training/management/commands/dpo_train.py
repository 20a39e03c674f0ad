"""`manage.py dpo_train`: preference pairs in one file, a LoRA adapter in a directory. Needs no database."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from training import evaluation
from training.dpo import artifacts, config

CONFIG = "config.json"
DEFAULTS = {field.name: field.default for field in dataclasses.fields(config.Config)}
NUMBERS: dict[str, type] = {"beta": float, "learning_rate": float, "rank": int, "per_device_batch": int, "seed": int}


class Command(BaseCommand):
    help = "Train a LoRA adapter by DPO on a JSONL file of preference pairs (prompt, chosen, rejected)."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-model", required=True, metavar="M", help="a directory or a Hugging Face id")
        parser.add_argument("--dataset", required=True, metavar="F", help="JSONL with prompt, chosen, rejected")
        parser.add_argument("--output-dir", required=True, metavar="D", help="where the adapter goes")
        parser.add_argument("--epochs", type=float, default=DEFAULTS["epochs"], metavar="N")
        parser.add_argument("--heldout", metavar="F", help="pairs not to train on: measured, and evaluated at the end")
        for name, kind in NUMBERS.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=DEFAULTS[name], metavar="N")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = config.build(values(options))
        except config.Refusal as refusal:
            raise CommandError(str(refusal), returncode=2) from refusal
        path = self.train(chosen)
        if chosen.heldout:
            self.evaluate(chosen, path)
        self.stdout.write(self.style.SUCCESS(_("The adapter is in %s.") % chosen.adapter))

    def train(self, chosen: config.Config) -> Path:
        """Trains; the configuration gets its name only then, since an earlier run's may stand there."""
        draft = self.write(chosen)
        try:
            if code := self.run("training.dpo.program", draft):
                raise CommandError(_("Training ended early; nothing was kept."), returncode=code)
            return draft.replace(chosen.output / CONFIG)
        except BaseException:
            self.take_back(draft, chosen)
            raise

    def evaluate(self, chosen: config.Config, path: Path) -> None:
        if code := self.run("training.dpo.evaluate", path):
            sentence = _("The adapter is in %(adapter)s, but its evaluation ended early.")
            raise CommandError(sentence % {"adapter": chosen.adapter}, returncode=code)
        try:
            self.stdout.write(verdict(chosen.output))
        except evaluation.Diverged as diverged:
            raise CommandError(str(diverged), returncode=2) from diverged

    def write(self, chosen: config.Config) -> Path:
        path = chosen.output / f".{CONFIG}.draft"
        try:
            chosen.output.mkdir(parents=True, exist_ok=True)
            artifacts.write_json(path, dataclasses.asdict(chosen))
        except OSError as error:
            words = {"directory": chosen.output, "reason": error.strerror}
            raise CommandError(_("%(directory)s cannot be written: %(reason)s.") % words, returncode=2) from error
        return path

    def take_back(self, draft: Path, chosen: config.Config) -> None:
        draft.unlink(missing_ok=True)
        if not chosen.adapter.is_dir():  # else it is an earlier run's, and so is its configuration
            (chosen.output / CONFIG).unlink(missing_ok=True)
        if not any(chosen.output.iterdir()):
            chosen.output.rmdir()

    def run(self, module: str, path: Path) -> int:
        """The exit code of a training program in a process of its own; it says itself, on stderr, what went wrong."""
        argv = [sys.executable, "-m", module, str(path)]
        with subprocess.Popen(argv, cwd=settings.ROOT, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603
            assert child.stdout is not None
            for line in child.stdout:
                self.show(line)
        return abs(int(child.returncode))

    def show(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # a library's own words
        loss = f"  loss {said['loss']:.3f}" if "loss" in said else ""
        self.stdout.write(f"{said['stage']:>10} {said['done']}/{said['total']}{loss}")


def values(options: dict[str, Any]) -> dict[str, Any]:
    """The configuration's values: paths absolute, because the program runs elsewhere; a hub id as it is."""
    base = options["base_model"]
    return {
        "base_model": str(Path(base).resolve()) if Path(base).exists() else base,
        "train": str(Path(options["dataset"]).resolve()),
        "heldout": str(Path(options["heldout"]).resolve()) if options["heldout"] else "",
        "output_dir": str(Path(options["output_dir"]).resolve()),
        **{name: options[name] for name in ("epochs", *NUMBERS)},
    }


def verdict(output: Path) -> str:
    """One sentence on the evaluation in `output`. Raises evaluation.Diverged."""
    result = evaluation.finite(json.loads((output / evaluation.RESULT).read_text(encoding="utf-8")))
    words = {"accuracy": result["reward_accuracy"], "pairs": result["pairs"]}
    words |= {"low": result["reward_accuracy_low"], "high": result["reward_accuracy_high"]}
    return _("Held-out reward accuracy %(accuracy).3f (95 %%: %(low).3f to %(high).3f) on %(pairs)d pairs.") % words
