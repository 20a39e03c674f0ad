"""The engines that answer: who they are, what opens them, which adapters live on which of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from attestation import vault
from inference.gateway.snapshot import Host
from inference.models import Adapter, BaseModel, Replica, Residence
from tenants import epochs
from tenants.models import Tenant

PURPOSE = "engine key"
SILENT = timedelta(seconds=60)  # an agent that has not looked for so long looks after nothing


class Taken(Exception):
    """Another agent looks after that replica."""

    def __init__(self, name: str, agent: str) -> None:
        super().__init__(f"{agent} looks after {name}. Stop it first, or give this engine a name of its own.")


def claim(name: str, url: str, agent: str) -> Replica:
    """The replica `name` at `url`, looked after by `agent` from now on; raises Taken."""
    with transaction.atomic():
        Replica.objects.get_or_create(name=name, defaults={"url": url})
        replica = Replica.objects.select_for_update().get(name=name)
        if replica.agent not in ("", agent) and is_attended(replica):
            raise Taken(name, replica.agent)
        replica.url, replica.agent, replica.seen_at = url, agent, timezone.now()
        replica.draining = False
        replica.save()
    return replica


def is_attended(replica: Replica) -> bool:
    """Whether its agent has looked at it just now."""
    return replica.seen_at is not None and timezone.now() - replica.seen_at < SILENT


def secret(replica: Replica) -> str:
    """What opens it; raises vault.Locked under another master key."""
    return vault.unseal(PURPOSE, replica.name, bytes(replica.secret)).decode() if replica.secret else ""


def sealed(replica: Replica, text: str) -> bytes:
    return vault.seal(PURPOSE, replica.name, text.encode()) if text else b""


def save(replica: Replica, *fields: str) -> None:
    """Keeps what the agent saw and makes every gateway read it before its next admission."""
    with transaction.atomic():
        replica.save(update_fields=[*fields, "seen_at"])
        epochs.raise_all()


class DrainBusy(Exception):
    """Another replica of the base model is draining: two at once would leave the calls nowhere to go."""


def begin_drain(replica: Replica) -> bool:
    """Sends new calls to the base model's other replicas; False where there is none to take them. Raises DrainBusy."""
    with transaction.atomic():
        well = Replica.objects.select_for_update().filter(base=replica.base, state=Replica.State.WELL)
        spare = [one for one in well if one.pk != replica.pk and is_attended(one)]
        if not spare:
            return False
        if any(one.draining for one in spare):
            raise DrainBusy
        replica.draining = True
        save(replica, "draining")
    return True


def end_drain(replica: Replica) -> None:
    replica.draining = False
    save(replica, "draining")


class Hosts:
    """Which replicas answer for which base model and for which of a tenant's adapters, as snapshots name them.

    A replica whose engine does not answer is among them: the gateway sees sooner than the agent when it is well again.
    """

    def __init__(self, tenant: Tenant) -> None:
        known = Replica.objects.exclude(base=None).exclude(state=Replica.State.STRANGE)
        self._replicas = {replica.pk: replica for replica in known}
        living = Residence.objects.filter(adapter__tenant=tenant, state=Residence.State.ELIGIBLE)
        self._loads: dict[object, list[tuple[int, int]]] = {}
        for adapter, replica, load in living.values_list("adapter", "replica", "load_epoch"):
            self._loads.setdefault(adapter, []).append((replica, load))

    def of(self, base: BaseModel, adapter: Adapter | None) -> tuple[Host, ...]:
        if adapter is None:
            found = [(one, 0) for one in self._replicas.values() if one.base_id == base.pk]
        else:
            loads = self._loads.get(adapter.pk, ())
            found = [(self._replicas[place], load) for place, load in loads if place in self._replicas]
        free = [pair for pair in found if not pair[0].draining]
        return tuple(_host(*pair) for pair in free or found)


def _host(replica: Replica, load: int) -> Host:
    return Host(replica.name, replica.url, secret(replica), replica.version, load)


def eligible(adapters: Iterable[Adapter]) -> set[object]:
    """The ids of those that answer somewhere."""
    living = Residence.objects.filter(adapter__in=adapters, state=Residence.State.ELIGIBLE)
    return set(living.values_list("adapter", flat=True))
