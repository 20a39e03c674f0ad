"""The engine's own fields that an operator opens for a tenant: `inference.protocol.fields` says which there are."""

from __future__ import annotations

from collections.abc import Collection

from django.utils.translation import gettext as _

from inference.protocol import fields
from tenants import tenancy
from tenants.models import Tenant, User
from tenants.problems import Refused


class UnknownExtra(Refused):
    field = "fields"

    def __init__(self, name: str) -> None:
        known = ", ".join(sorted(fields.OPENABLE))
        super().__init__(_("%(name)s cannot be opened. These can: %(known)s.") % {"name": name[:80], "known": known})


def open_(tenant: Tenant, names: Collection[str], actor: User | None) -> Tenant:
    """These and no others, from the next call on; raises UnknownExtra."""
    for name in names:
        if name not in fields.OPENABLE:
            raise UnknownExtra(name)
    return tenancy.open_extras(tenant, names, actor)
