"""Rollouts: an adapter takes over an alias by weight. Each change holds from the tenant's next call on.

running -> done (promoted) | rolled_back. Every change is a compare-and-set on `running`, an event and an audit entry.
"""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.utils import timezone

from inference import aliases, registry
from inference.gateway.snapshot import BASIS
from inference.models import Adapter, Alias, Rollout, RolloutEvent
from tenants import audit, epochs
from tenants.models import User


class AlreadyRunning(Exception):
    """An alias carries one rollout at a time."""

    def __init__(self, alias: Alias) -> None:
        super().__init__(f"A rollout is running on {alias}. Promote it or stop it first.")
        self.alias = alias


class NotRunning(Exception):
    """The rollout has ended; somebody was quicker."""

    def __init__(self, rollout: Rollout) -> None:
        super().__init__(f"The rollout of {rollout.adapter} has ended ({rollout.state}).")
        self.rollout = rollout


class BadWeight(ValueError):
    def __init__(self, weight_bp: int) -> None:
        super().__init__(f"A weight is 0 to {BASIS} (1/10,000 of the calls), not {weight_bp}.")
        self.weight_bp = weight_bp


@transaction.atomic
def start(alias: Alias, adapter: Adapter, actor: User | None, weight_bp: int = 1_000) -> Rollout:
    """Sends `weight_bp` of 10,000 callers of `alias` to `adapter`.

    Raises aliases.NotServable, BadWeight, or AlreadyRunning.
    """
    _check_weight(weight_bp)
    registry.lock(adapter)
    alias.refresh_from_db(fields=["champion"])
    aliases.check_servable(alias, adapter)
    if alias.champion_id == adapter.pk:
        raise aliases.NotServable(adapter, "it is the champion already.")
    try:
        with transaction.atomic():
            rollout = Rollout.objects.create(alias=alias, adapter=adapter, weight_bp=weight_bp)
    except IntegrityError as error:
        raise AlreadyRunning(alias) from error
    _route(alias, challenger=adapter, challenger_bp=weight_bp, salt=aliases.new_salt())
    _note(rollout, actor, "rollout.start", None)
    return rollout


@transaction.atomic
def set_weight(rollout: Rollout, actor: User | None, weight_bp: int) -> Rollout:
    """Changes the challenger's share; raises BadWeight or NotRunning."""
    _check_weight(weight_bp)
    before = _change(rollout, weight_bp=weight_bp)
    _route(rollout.alias, challenger_bp=weight_bp)
    _note(rollout, actor, "rollout.weight", before)
    return rollout


@transaction.atomic
def stop(rollout: Rollout, actor: User | None, note: str = "") -> Rollout:
    """Rolls back: the champion answers everyone again. Raises NotRunning."""
    before = _change(rollout, state=Rollout.State.ROLLED_BACK, weight_bp=0, ended_at=timezone.now())
    _route(rollout.alias, challenger=None, challenger_bp=0)
    _note(rollout, actor, "rollout.stop", before, note)
    return rollout


@transaction.atomic
def promote(rollout: Rollout, actor: User | None) -> Rollout:
    """The challenger becomes the champion; raises NotRunning."""
    before = _change(rollout, state=Rollout.State.DONE, weight_bp=BASIS, ended_at=timezone.now())
    _route(rollout.alias, champion=rollout.adapter, challenger=None, challenger_bp=0)
    _note(rollout, actor, "rollout.promote", before)
    return rollout


def _check_weight(weight_bp: int) -> None:
    if not 0 <= weight_bp <= BASIS:
        raise BadWeight(weight_bp)


def _change(rollout: Rollout, **fields: object) -> dict[str, object]:
    """Compare-and-set; answers what the rollout was."""
    before: dict[str, object] = {"state": rollout.state, "weight_bp": rollout.weight_bp}
    changed = Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.RUNNING).update(**fields)
    rollout.refresh_from_db()
    if not changed:
        raise NotRunning(rollout)
    return before


def _route(alias: Alias, **fields: object) -> None:
    for name, value in fields.items():
        setattr(alias, name, value)
    alias.save(update_fields=list(fields))


def _note(rollout: Rollout, actor: User | None, action: str, before: dict[str, object] | None, note: str = "") -> None:
    RolloutEvent.objects.create(
        rollout=rollout, actor=actor, state=rollout.state, weight_bp=rollout.weight_bp, note=note[:200]
    )
    after = {"state": rollout.state, "weight_bp": rollout.weight_bp, "adapter": str(rollout.adapter)}
    audit.record(actor, action, f"alias {rollout.alias}", before, after, rollout.alias.tenant)
    epochs.raise_(rollout.alias.tenant)
