"""`manage.py public_keys`: the public keys that verify this installation's statements, one in hex a line."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from attestation import keyring


class Command(BaseCommand):
    help = "Print the public keys (hex) that are not revoked; hand them to whoever verifies elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        for public_key in keyring.public_keys().values():
            self.stdout.write(public_key)
