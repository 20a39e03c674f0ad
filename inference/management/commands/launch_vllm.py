"""`manage.py launch_vllm`: vLLM for this machine's hardware, with a key of its own. `--show` only says how."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from inference.engines import hardware, keeper, key, lock, vllm
from inference.models import Adapter

log = logging.getLogger(__name__)
POLL = 0.5  # seconds between looks for the model
# What vLLM gets of our environment: no secret of ours is its business.
INHERITED = frozenset(("PATH", "HOME", "LANG", "TMPDIR", "USER", "TZ", "PARAMSTACK_PARENT"))
FAMILIES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "NCCL_", "LD_", "OMP_", "VLLM_", "HF_", "TORCH", "TRITON_", "RAY_")


class Command(BaseCommand):
    requires_system_checks = ()  # a start is not the moment
    help = "Start vLLM as the serving engine. Shows the command first; the key stays out of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--show", action="store_true", help="show the command and start nothing")
        parser.add_argument("--model", default=str(settings.ENGINE_MODEL), help="directory, which may appear later")
        parser.add_argument("--name", default="", help="what calls name the base model; default: the directory's name")
        parser.add_argument("--host", default="127.0.0.1", help="loopback or an address of a private network")
        parser.add_argument("--port", type=int, default=settings.ENGINE_PORT)
        parser.add_argument("--dtype", default="", help=f"default: the hardware's; {', '.join(vllm.DTYPES)}")
        parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that share the model")
        parser.add_argument("--max-model-len", type=int, help="tokens of prompt and answer; default: what fits")
        parser.add_argument("--max-num-seqs", type=int, help="answers made at a time; default: the hardware's")
        parser.add_argument("--memory", type=float, help="share of each GPU; on a CPU, GiB of cache")
        parser.add_argument("--kv-cache-dtype", default="auto", help="auto, or fp8 for twice the tokens")
        parser.add_argument("--no-prefix-caching", action="store_true")
        parser.add_argument("--tenants", type=int, default=4, help="room for champion, challenger and spare of so many")
        parser.add_argument("--max-lora-rank", type=int, default=16)
        parser.add_argument("--speculation", default="", help=", ".join(vllm.SPECULATIONS))
        parser.add_argument("--draft-model", default="", help="what drafts, for eagle, eagle3 and draft")
        parser.add_argument("--speculative-tokens", type=int, default=4)
        parser.add_argument("--tool-call-parser", default="", help="vLLM's name for the model's way to call tools")
        parser.add_argument("--eager", action="store_true", help="no compilation: starts sooner, answers later")

    def handle(self, *args: Any, show: bool, **given: Any) -> None:
        options = wishes(given)
        machine = hardware.detect()
        try:
            launch = vllm.command(options, machine, str(settings.ENGINE_PYTHON))
        except vllm.Refused as refused:
            raise CommandError(str(refused)) from None
        self.show(launch, vllm.notes(options, machine))
        if show:
            return
        if not settings.ENGINE_PYTHON.exists():
            raise CommandError(f"vLLM is not installed: {settings.ENGINE_PYTHON} is missing. Run `make vllm` first.")
        self.wait_for_model(options)
        env = environment(launch, key.renew(settings.ENGINE_KEY_FILE))
        argv = [sys.executable, "-I", "-S", keeper.__file__, *launch.argv]
        os.execve(argv[0], argv, env)  # noqa: S606  (ours, without a shell)

    def show(self, launch: vllm.Launch, notes: list[str]) -> None:
        """The command as it could be typed, but for the key."""
        for note in notes:
            self.stdout.write(f"# {note}")
        self.stdout.write(f"# {lock.VARIABLE} is made at the start and kept in {settings.ENGINE_KEY_FILE}")
        self.stdout.write(" ".join(f"{name}={shlex.quote(value)}" for name, value in launch.env.items()) + " \\")
        self.stdout.write(f"  {shlex.join(launch.argv)}")
        self.stdout.flush()

    def wait_for_model(self, options: vllm.Options) -> None:
        path = Path(options.model) / "config.json"
        if options.is_local and not path.exists():
            self.stdout.write(f"# waiting for the base model in {options.model}")
            self.stdout.flush()
            while not path.exists():
                time.sleep(POLL)


def wishes(given: dict[str, Any]) -> vllm.Options:
    names = vllm.Options.__dataclass_fields__.keys() & given.keys()
    options = {name: given[name] for name in names}
    return vllm.Options(**options, prefix_caching=not given["no_prefix_caching"], ranks=ranks())


def ranks() -> tuple[int, ...]:
    """Of the adapters that the engine will be asked to load; none where there is no database yet."""
    try:
        return tuple(Adapter.objects.filter(state=Adapter.State.LOADED, rank__gt=0).values_list("rank", flat=True))
    except DatabaseError:
        return ()


def environment(launch: vllm.Launch, secret: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(FAMILIES)}
    # The lock is ours: vLLM finds it by the path of this repository.
    return kept | {"PYTHONPATH": str(settings.ROOT), "PYTHONUNBUFFERED": "1"} | launch.env | {lock.VARIABLE: secret}
