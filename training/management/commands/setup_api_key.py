"""`manage.py setup_api_key`: takes an Anthropic API key without showing it, proves that it works, stores it."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from training import claude
from training.problems import Problem, writing


class Command(BaseCommand):
    help = "Store an Anthropic API key (hidden input), after telling its kind and testing the connection."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-test", action="store_true", help="store without asking Anthropic (no network)")

    def handle(self, *args: Any, no_test: bool, **options: Any) -> None:
        key = read_key()
        try:
            client = claude.client(key)
            self.remark(key)
            if not no_test:
                self.stderr.write(_("Testing the key at %(address)s …") % {"address": settings.ANTHROPIC_BASE_URL})
                self.prove(key, client)
            store(key, path())
        except Problem as problem:
            raise CommandError(str(problem)) from problem
        self.sum_up(tested=not no_test)

    def remark(self, key: str) -> None:
        if claude.key_kind(key) == "unknown":
            self.stderr.write(
                _("This does not look like an Anthropic API key (sk-ant-api03-…); trying it all the same.")
            )

    def prove(self, key: str, client: Any) -> None:
        """Raises the Problems of `claude`. A key that lacks only credit is stored all the same: it is the right key."""
        try:
            claude.prove(client)
        except claude.LowCredit:
            store(key, path())
            self.stderr.write(_("The key was stored in %(path)s.") % {"path": path()})
            raise

    def sum_up(self, tested: bool) -> None:
        words = {"path": path()}
        sentence = _("The key works and was stored in %(path)s (mode 0600).") if tested else _(
            "The key was stored in %(path)s (mode 0600) without a test."
        )  # fmt: skip
        self.stdout.write(sentence % words)
        self.stdout.write(_("Restart what runs (`make up`) so that it is read. %(terms)s") % {"terms": claude.TERMS})
        if os.environ.get("ANTHROPIC_API_KEY"):
            self.stderr.write(_("ANTHROPIC_API_KEY is set in the environment and goes before the stored key."))


def path() -> Path:
    """Where the embedded default's settings look for the key."""
    return Path(settings.VAR) / "secrets" / "anthropic"


def read_key() -> str:
    """The key, typed without an echo, or the first line of a pipe."""
    if sys.stdin.isatty():
        return getpass.getpass(_("Anthropic API key (nothing is shown while you type): ")).strip()
    return sys.stdin.readline().strip()


def store(key: str, path: Path) -> None:
    """Replaces the stored key, whole or not at all, readable by its owner only. Raises DiskFull."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(key + "\n")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
