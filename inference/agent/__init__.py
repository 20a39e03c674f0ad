"""The agent beside an engine: the adapters that should answer there do, and no others.

Wanted is what the registry says, observed is what the engine says; each tick moves one towards the other. An adapter is
fetched from the store and verified while it is copied, loaded (its replica gets no new calls meanwhile, where another
one can take them), asked for its known answers, and only then named to the gateways. It leaves when no call of it is
under way. A name is one content for ever (`Adapter.engine_name`), so that no engine's cache can mix two up.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import redis
from django.db import DatabaseError, close_old_connections

from inference import reconciliation
from inference.agent.residents import Residents, State
from inference.agent.sight import Fenced, Sight
from inference.engines.client import Engine, EngineError
from inference.models import Adapter, Residence

__all__ = ["Agent", "Fenced"]
log = logging.getLogger(__name__)
TICK = 0.5  # seconds


class Agent:
    """Looks after the replica `name`, whose engine answers at `url`; `cache` is a directory of its own that the engine
    can read. Raises replicas.Taken.
    """

    def __init__(self, name: str, url: str, key_file: Path, cache: Path) -> None:
        self.sight = Sight(name, url, key_file, cache)
        engine = Engine(url, key_file=key_file, spent=partial(reconciliation.own, name))
        self.residents = Residents(self.sight, engine, cache)

    def run(self) -> None:
        """For as long as it lives; raises Fenced."""
        while True:
            try:
                busy = self.tick()
            except (EngineError, redis.RedisError, DatabaseError) as error:
                log.warning("%s: %s", self.sight.replica, error)
                close_old_connections()
                busy = False
            time.sleep(0 if busy else TICK)

    def tick(self) -> bool:
        """One look and what follows from it; whether there was something to do. Raises Fenced."""
        present = self.sight.look()
        self.sight.beat()
        replica, residents = self.sight.replica, self.residents
        if present is None or replica.base is None:
            return False
        mine = replica.residences.select_related("adapter__tenant", "adapter__base", "adapter__statement")
        wanted = Adapter.objects.filter(base=replica.base, state=Adapter.State.LOADED)
        here = {one.adapter_id: one for one in mine}
        lost = residents.lose(here.values(), present)
        for adapter in wanted.exclude(pk__in=here.keys()):
            Residence.objects.create(replica=replica, adapter=adapter)
        gone = [residents.leave(one) for one in here.values() if one.adapter.state != Adapter.State.LOADED]
        brought = residents.bring(mine.filter(state=State.FETCHING, adapter__in=wanted))
        stray = residents.sweep(present)
        return any((lost, *gone, brought, stray)) or residents.probe_next()

    def settle(self, seconds: float = 60.0) -> None:
        """Ticks until nothing is left to do now; for tests."""
        deadline = time.monotonic() + seconds
        while self.tick() and time.monotonic() < deadline:
            pass
