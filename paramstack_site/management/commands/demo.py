"""`manage.py demo`: starts the embedded stack, runs the whole loop once, and stays until it is stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from paramstack_site import stack

STAGES = (
    ("people", "Two tenants, members, keys, quotas, budgets"),
    ("base", "A small Llama, pre-trained here"),
    ("prompts", "Turkish prompts"),
    ("preferences", "Answers, verdicts, preference pairs"),
    ("review", "Review queue"),
    ("export", "Frozen, hashed, split export"),
    ("dpo", "DPO with TRL and a LoRA adapter"),
    ("evaluation", "Base against adapter, held out"),
    ("serving", "Verified, loaded, served"),
    ("canary", "Canary, first step"),
    ("calls", "Calls through the gateway"),
    ("receipt", "Ledger receipt"),
)


class Command(BaseCommand):
    help = "Start the embedded stack and run the whole loop once on real input."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--exit", action="store_true", help="stop everything after the loop instead of serving on")

    def handle(self, *args: Any, exit: bool, **options: Any) -> None:
        console = Console(highlight=False)
        started = time.monotonic()
        with stack.start() as running:
            running.wait_ready()
            ready = time.monotonic() - started
            record = Path(settings.VAR) / "demo.json"
            if record.exists():
                console.print("\nThe loop was run before; its data was kept.")
                figures = json.loads(record.read_text())
            else:
                figures = self.loop(console)
                figures |= {"ready_s": round(ready, 2), "loop_s": round(time.monotonic() - started, 2)}
                record.write_text(json.dumps(figures, indent=1))
            farewell(console, figures, exit)
            if not exit:
                running.stay()

    def loop(self, console: Console) -> dict[str, Any]:
        try:
            return run_loop(console)
        except Exception as error:
            if expected(error):
                raise CommandError(f"{error}") from error
            raise


def expected(error: Exception) -> bool:
    """Errors that carry a sentence for the reader; anything else is a defect and keeps its traceback."""
    from attestation.signing import VerificationError
    from inference.engines.client import EngineError
    from paramstack_site.demo.stages import StageFailed
    from training.problems import Problem

    return isinstance(error, (StageFailed, Problem, VerificationError, EngineError))


def run_loop(console: Console) -> dict[str, Any]:
    from paramstack_site.demo import calls, people, stages

    scene = stages.Scene(people.Secrets.load())
    work: dict[str, Callable[[stages.Scene], str]] = {
        "people": stages.settle_in,
        "base": stages.build_base,
        "prompts": stages.import_prompts,
        "preferences": stages.prefer,
        "review": stages.decide,
        "export": stages.freeze,
        "dpo": stages.train,
        "evaluation": stages.evaluate,
        "serving": stages.load,
        "canary": stages.start_canary,
        "calls": calls.call,
        "receipt": calls.verify_receipt,
    }
    console.print()
    for number, (name, title) in enumerate(STAGES, 1):
        began = time.monotonic()
        line = watch(console, scene, f"{number:>2}/{len(STAGES)} {title}", work[name])
        seconds = time.monotonic() - began
        scene.figures[f"{name}_s"] = round(seconds, 2)
        console.print(f"[green]✓[/] [bold]{number:>2} {title}[/] [dim]{seconds:.1f} s[/]\n     {line}")
    return scene.figures


def watch(console: Console, scene: Any, title: str, stage: Callable[[Any], str]) -> str:
    """Runs one stage under a progress bar that vanishes when it ends."""
    columns = (SpinnerColumn(), TextColumn(title), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, words="")

        def progress(done: int, total: int, words: str) -> None:
            bar.update(task, completed=done, total=total or None, words=words)

        scene.progress = progress
        return stage(scene)


def farewell(console: Console, figures: dict[str, Any], exit: bool) -> None:
    from paramstack_site.demo import people

    kept = people.Secrets.load()
    address = f"http://{settings.HOST}:{settings.PORT}"
    console.print(f"\n[bold]The loop is served.[/] Its first run took {figures['loop_s']:.0f} s.\n")
    console.print(f"  Open      {address}/t/acme/")
    console.print(f"  Log in    engineer / {kept.password}   (reviewer, owner, auditor, operator: the same password)")
    console.print("  Call it")
    question = [{"role": "user", "content": "LoRA adaptörü nedir?"}]
    body = json.dumps({"model": people.ALIAS, "messages": question}, ensure_ascii=False)
    headers = f"-H 'Authorization: Bearer {kept.api_keys['acme']}' -H 'Content-Type: application/json'"
    curl = f"curl {address}/v1/chat/completions {headers} -d '{body}'"
    console.print(curl, soft_wrap=True, markup=False)
    console.print("\n  Look first at the overview, then at the pairs that wait for you: /t/acme/review/")
    if not exit:
        console.print("  Stop with Ctrl-C; `make up` starts it again with everything kept.\n")
