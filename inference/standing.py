"""How the engines stand: each replica as its agent last saw it, with one tenant's adapters on it.

Rule: what nobody looks at is unknown, whatever its row says. Another tenant's adapters are a number at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, Q

from inference import replicas
from inference.models import Adapter, Replica, Residence
from tenants.models import Tenant

WELL, DRAINING, AWAY, STRANGE, UNKNOWN = "well", "draining", "away", "strange", "unknown"


@dataclass(frozen=True, slots=True)
class Standing:
    """`state` is one of the five above; `living` are the tenant's adapters here, `loaded` how many of anybody's."""

    replica: Replica
    state: str
    living: list[Residence]
    loaded: int

    @property
    def is_well(self) -> bool:
        """Whether calls get an answer there; a replica that drains still answers what it has."""
        return self.state in (WELL, DRAINING)

    @property
    def answering(self) -> list[Residence]:
        return [each for each in self.living if each.state == Residence.State.ELIGIBLE]


def of(tenant: Tenant) -> list[Standing]:
    """Every replica, by name. Two queries."""
    here = Count("residences", filter=Q(residences__state=Residence.State.ELIGIBLE))
    rows = list(Replica.objects.select_related("base").annotate(loaded=here))
    living: dict[int, list[Residence]] = {}
    for each in Residence.objects.filter(adapter__tenant=tenant).select_related("adapter").order_by("adapter"):
        living.setdefault(each.replica_id, []).append(each)
    return [Standing(row, _state(row), living.get(row.pk, []), row.loaded) for row in rows]


def homeless(tenant: Tenant, standings: Iterable[Standing]) -> list[Adapter]:
    """The tenant's loaded adapters that answer nowhere. One query."""
    housed = {each.adapter_id for one in standings for each in one.answering}
    return list(tenant.adapters.filter(state=Adapter.State.LOADED).exclude(pk__in=housed))


def _state(replica: Replica) -> str:
    if not replicas.is_attended(replica):
        return UNKNOWN
    if replica.state != Replica.State.WELL:
        return STRANGE if replica.state == Replica.State.STRANGE else AWAY
    return DRAINING if replica.draining else WELL
