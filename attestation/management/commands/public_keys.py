"""`manage.py public_keys`: the public keys that verify this installation's statements, one in hex a line."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils.translation import gettext as _

from attestation import keyring


class Command(BaseCommand):
    help = "Print the public keys (hex) that are not revoked; hand them to whoever verifies elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            keys = keyring.public_keys()
        except DatabaseError:
            raise CommandError(_("The database does not answer. Run `manage.py migrate` first.")) from None
        self.stdout.write("\n".join(keys.values()))
