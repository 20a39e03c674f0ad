"""Adapters on one engine: how each comes, is proved to be itself, and leaves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from attestation import canonical
from attestation.signing import VerificationError
from inference import artifacts, registry, replicas
from inference.agent.sight import Sight
from inference.engines import known
from inference.engines.client import Engine, EngineError
from inference.models import Adapter, Residence
from tenants import counters, epochs, metering

log = logging.getLogger(__name__)
DRAIN_SECONDS = 30.0  # that a load waits for the calls of its replica
RETRY_SECONDS = 5.0  # after an engine that did not take an adapter
PROBE_SECONDS = 600.0  # after so long the known answers are asked for again
CLIENT_ERROR, SERVER_ERROR = 400, 500

State = Residence.State
Why = Residence.Why


class Residents:
    """Those of the replica that `sight` sees; `engine` loads what lies in `cache`."""

    def __init__(self, sight: Sight, engine: Engine, cache: Path) -> None:
        self.sight, self.engine, self.cache = sight, engine, cache
        self.replica = sight.replica
        self.probe_at = 0.0  # monotonic
        self.later: dict[int, float] = {}  # residences that are tried again from then on
        self._due: list[int] = []  # residences whose known answers are to be asked for

    def lose(self, here: Iterable[Residence], present: set[str]) -> bool:
        """Begins anew what did not come to its end, and takes from the gateways what the engine has lost."""
        lost = False
        for one in here:
            again = one.start != self.replica.start
            wanted_again = one.state == State.LEAVING and one.adapter.state == Adapter.State.LOADED
            if one.state in (State.LOADING, State.PROBING) or wanted_again or (one.state == State.FAILED and again):
                self._move(one, State.FETCHING)
            elif one.state == State.ELIGIBLE and (again or one.adapter.engine_name not in present):
                log.warning("%s has lost %s.", self.replica, one.adapter)
                self._move(one, State.FETCHING, Why.LOST)
                lost = True
        return lost

    def bring(self, coming: Iterable[Residence]) -> bool:
        """Fetches, loads and probes those whose turn it is; one drain for all of them."""
        now = time.monotonic()
        due = [one for one in coming if self.later.get(one.pk, 0.0) <= now]
        ready = [(one, path) for one in due if (path := self._fetch(one))]
        if not ready:
            return False
        try:
            drained = replicas.begin_drain(self.replica)
        except replicas.DrainBusy:
            return False  # its turn comes
        try:
            if drained:
                self._wait_until_idle()
            for one, path in ready:
                self.sight.beat()
                self._load(one, path)
        finally:
            if drained:
                replicas.end_drain(self.replica)
        return True

    def _fetch(self, residence: Residence) -> Path | None:
        """Where the adapter's verified files are on this host; without them nothing, and the residence says why."""
        adapter = residence.adapter
        try:
            signed = registry.statement(adapter)
            path = self.cache / adapter.digest
            if path.exists():
                verified = canonical.digest(canonical.manifest(path)) == adapter.digest
                if verified:
                    return path
                artifacts.remove(path)  # somebody changed it here
            artifacts.store().fetch(signed["predicate"]["files"], adapter.digest, path)
        except VerificationError as error:
            self._fail(residence, Why.FILES, str(error))
        except OSError as error:
            self._retry(residence, Why.STORE, str(error))
        else:
            return path
        return None

    def _load(self, residence: Residence, path: Path) -> None:
        adapter = residence.adapter
        self.replica.loads += 1
        self.sight.own(loads=self.replica.loads)
        residence.load_epoch, residence.start = self.replica.loads, self.replica.start
        self._move(residence, State.LOADING)
        try:
            self.engine.load(adapter.engine_name, path)
            self._move(residence, State.PROBING)
            self.probe(residence)
        except known.WrongAnswer as error:
            self.engine.unload(adapter.engine_name)
            self._fail(residence, Why.UNPROVED, str(error))
        except (known.Malformed, OSError) as error:
            self._fail(residence, Why.RECORD, str(error))
        except EngineError as error:
            if CLIENT_ERROR <= error.status < SERVER_ERROR:
                self._fail(residence, Why.REFUSED, str(error))
            else:
                self._retry(residence, Why.ENGINE, str(error))
        else:
            self._move(residence, State.ELIGIBLE)
            log.info("%s answers on %s (load %d).", adapter, self.replica, residence.load_epoch)
            self._ask_again()

    def _wait_until_idle(self) -> None:
        """Until the calls that came before the drain have ended; a long stream is not waited for."""
        deadline, quiet = time.monotonic() + DRAIN_SECONDS, 0
        while time.monotonic() < deadline:
            quiet = quiet + 1 if not any(self.sight.under_way()) else 0
            if quiet > 1:  # one that was admitted before may have been on its way at the first look
                return
            self.sight.beat()
            time.sleep(0.1)
        log.warning("%s loads beside calls that last longer than %g s.", self.replica, DRAIN_SECONDS)

    def leave(self, residence: Residence) -> bool:
        """Unloads once nobody waits for its answer; whether something was done."""
        name = residence.adapter.engine_name
        if residence.state != State.LEAVING:
            self._move(residence, State.LEAVING)
        if _open_calls(name):
            return False
        self.engine.unload(name)
        if name in self.engine.models():
            self._move(residence, State.LEAVING, Why.STUCK)
            return False
        artifacts.remove(self.cache / residence.adapter.digest)
        residence.delete()
        log.info("%s has left %s.", residence.adapter, self.replica)
        self._ask_again()
        return True

    def sweep(self, present: set[str]) -> bool:
        """Unloads adapters of ours that no row stands for, as after a row was removed."""
        rows = {one.adapter.engine_name for one in self.replica.residences.select_related("adapter__tenant")}
        strays = present - rows
        if strays:
            ours = Adapter.objects.filter(base=self.replica.base).select_related("tenant")
            strays &= {adapter.engine_name for adapter in ours}
        for name in strays:
            log.warning("%s serves %s, which nobody wants there.", self.replica, name)
            self.engine.unload(name)
        return bool(strays)

    def probe(self, residence: Residence) -> None:
        """Asks for the known answers; raises WrongAnswer, Malformed, EngineError or OSError."""
        adapter = residence.adapter
        expected = known.parse((self.cache / adapter.digest / known.NAME).read_bytes())
        answers = [self.engine.greedy(adapter.engine_name, case.prompt, len(case.tokens)) for case in expected.cases]
        known.check(expected, answers)
        residence.probed_at = timezone.now()

    def _ask_again(self) -> None:
        """After a change in the engine everybody's known answers are asked for, one a tick."""
        eligible = self.replica.residences.filter(state=State.ELIGIBLE)
        self._due = list(eligible.order_by(F("probed_at").asc(nulls_first=True)).values_list("pk", flat=True))
        self.probe_at = time.monotonic() + PROBE_SECONDS

    def probe_next(self) -> bool:
        """Asks the next one whose turn it is; whether more of them wait."""
        if time.monotonic() >= self.probe_at:
            self._ask_again()
        if not self._due:
            return False
        rows = self.replica.residences.select_related("adapter__tenant")
        residence = rows.filter(pk=self._due.pop(0), state=State.ELIGIBLE).first()
        if residence is None:
            return True
        try:
            self.probe(residence)
            residence.save(update_fields=["probed_at"])
        except known.WrongAnswer as error:
            self._fail(residence, Why.UNPROVED, str(error))
        except OSError as error:
            log.warning("%s: %s", residence, error)
        return bool(self._due)

    def _retry(self, residence: Residence, why: Why, note: str) -> None:
        self.later[residence.pk] = time.monotonic() + RETRY_SECONDS
        log.warning("%s (%s): %s", residence, why, note)
        self._move(residence, State.FETCHING, why, note)

    def _fail(self, residence: Residence, why: Why, note: str) -> None:
        log.error("%s is not served by %s (%s): %s", residence.adapter, self.replica, why, note)
        residence.start = self.replica.start
        self._move(residence, State.FAILED, why, note)

    def _move(self, residence: Residence, state: State, why: Why | str = "", note: str = "") -> None:
        """Gateways hear of it where it is about who answers."""
        told = State.ELIGIBLE in (residence.state, state)
        residence.state, residence.why, residence.note = state, why, note[:300]
        with transaction.atomic():
            residence.save()
            if told:
                epochs.raise_(residence.adapter.tenant)


def _open_calls(name: str) -> int:
    """How many admitted calls have not ended that go to the engine's model `name`, whichever gateway has them."""
    count = 0
    for row in counters.connect().hvals(metering.HOLDS):
        try:
            count += metering.read_hold(str(row)).event.served == name
        except metering.UnreadableEvent:
            continue
    return count
