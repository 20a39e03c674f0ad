"""`manage.py fake_anthropic`: an Anthropic API of one's own on the loopback, to try everything without key or money."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

DEV = "paramstack_site.settings.dev"


class Command(BaseCommand):
    help = "Serve a loopback server that speaks Anthropic's API; options as of `python -m training.loopback`."
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> None:
        """The options are the server's own, so they are handed on as they are; `--help` lists them."""
        try:
            self.serve(argv[2:])
        except CommandError as error:
            self.stderr.write(str(error), self.style.ERROR)
            sys.exit(error.returncode)

    def handle(self, *args: Any, **options: Any) -> None:
        self.serve([])

    def serve(self, words: list[str]) -> None:
        """Until Ctrl-C. Raises CommandError where the settings are not the ones for development."""
        if settings.SETTINGS_MODULE != DEV:
            raise CommandError(
                _("fake_anthropic runs with the development settings only (%(dev)s): its answers are made up, "
                  "and here they could be taken for Claude's.") % {"dev": DEV}
            )  # fmt: skip
        from training.loopback.__main__ import main

        self.stderr.write(_("Made-up answers in Anthropic's wire format. Set both lines below where Param Stack runs:"))
        main(words)
