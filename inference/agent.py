"""The agent beside an engine: the adapters that should answer there do, and no others.

Wanted is what the registry says, observed is what the engine says; each tick moves one towards the other. An adapter is
fetched from the store and verified while it is copied, loaded (its replica gets no new calls meanwhile, where another
one can take them), asked for its known answers, and only then named to the gateways. It leaves when no call of it is
under way. A name is one content for ever (`Adapter.engine_name`), so that no engine's cache can mix two up.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import redis
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from attestation import canonical
from attestation.signing import VerificationError
from inference import artifacts, registry, replicas
from inference.engines import key, known
from inference.engines.client import Engine, EngineError
from inference.models import Adapter, BaseModel, Replica, Residence
from tenants import counters, epochs, metering

log = logging.getLogger(__name__)
TICK = 0.5  # seconds
BEAT_SECONDS = 5.0
LOOK_SECONDS = 5.0  # that an engine has to say how it is
DRAIN_SECONDS = 30.0  # that a load waits for the calls of its replica
RETRY_SECONDS = 5.0  # after an engine that did not take an adapter
PROBE_SECONDS = 600.0  # after so long the known answers are asked for again
CLIENT_ERROR, SERVER_ERROR = 400, 500

State = Residence.State


class Fenced(Exception):
    """Another agent has taken over."""


class Agent:
    """Looks after the replica `name`, whose engine answers at `url`; `cache` is a directory of its own that the engine
    can read. Raises replicas.Taken.
    """

    def __init__(self, name: str, url: str, key_file: Path, cache: Path) -> None:
        self.engine = Engine(url, key_file=key_file)
        self._eye = Engine(url, LOOK_SECONDS, key_file)
        self._key_file, self._cache = key_file, cache
        self._id = f"{socket.gethostname()}:{os.getpid()}"
        self.replica = replicas.claim(name, url, self._id)
        self._beat_at = self._probe_at = 0.0  # monotonic
        self._later: dict[int, float] = {}  # residences that are tried again from then on
        self._due: list[int] = []  # residences whose known answers are to be asked for
        interrupted = self.replica.residences.filter(state__in=(State.LOADING, State.PROBING))
        interrupted.update(state=State.FETCHING)

    def run(self) -> None:
        """For as long as it lives; raises Fenced."""
        while True:
            try:
                busy = self.tick()
            except (EngineError, redis.RedisError) as error:
                log.warning("%s: %s", self.replica, error)
                busy = False
            time.sleep(0 if busy else TICK)

    def tick(self) -> bool:
        """One look and what follows from it; whether there was something to do. Raises Fenced."""
        present = self._look()
        self._beat()
        if present is None or self.replica.base is None:
            return False
        mine = self.replica.residences.select_related("adapter__tenant", "adapter__base", "adapter__statement")
        wanted = Adapter.objects.filter(base=self.replica.base, state=Adapter.State.LOADED)
        here = {one.adapter_id: one for one in mine}
        lost = self._lose(here.values(), present)
        for adapter in wanted.exclude(pk__in=here.keys()):
            Residence.objects.create(replica=self.replica, adapter=adapter)
        gone = [self._leave(one) for one in here.values() if one.adapter.state != Adapter.State.LOADED]
        now = time.monotonic()
        coming = mine.filter(state=State.FETCHING, adapter__in=wanted)
        brought = self._bring([one for one in coming if self._later.get(one.pk, 0.0) <= now])
        stray = self._sweep(present)
        return any((lost, *gone, brought, stray)) or self._probe_next()

    def settle(self, seconds: float = 60.0) -> None:
        """Ticks until nothing is left to do now; for commands and tests."""
        deadline = time.monotonic() + seconds
        while self.tick() and time.monotonic() < deadline:
            pass

    # What the engine is

    def _look(self) -> set[str] | None:
        """The names it serves, and the replica's row as it now is; nothing while it does not answer."""
        secret = key.read(self._key_file)
        try:
            told = self._eye.health()
            models = self._eye.listing()
            start = hashlib.sha256(f"{secret} {told.get('start', '')}".encode()).hexdigest()[:32]
            base, state, note = self.replica.base, self.replica.state, self.replica.note
            if start != self.replica.start or state != Replica.State.WELL or base is None:
                base, state, note = _base_of(models[0])
            version = self._eye.version() if start != self.replica.start else self.replica.version
            seen = {"base": base, "state": state, "note": note, "start": start, "version": version[:60]}
        except (EngineError, LookupError, TypeError) as error:
            seen, models = {"state": Replica.State.AWAY, "note": str(error)[:300]}, None
        changed = [name for name, value in seen.items() if getattr(self.replica, name) != value]
        for name, value in seen.items():
            setattr(self.replica, name, value)
        if replicas.secret(self.replica) != secret:
            self.replica.secret = replicas.sealed(self.replica, secret)
            changed.append("secret")
        if changed:
            log.log(logging.INFO if seen["state"] == Replica.State.WELL else logging.WARNING, "%s: %s. %s",
                    self.replica, self.replica.get_state_display(), self.replica.note)  # fmt: skip
            self._beat_at = 0.0
            self._own()
            replicas.save(self.replica, *changed)
        return {str(model["id"]) for model in models[1:]} if models and seen["state"] == Replica.State.WELL else None

    def _beat(self) -> None:
        if time.monotonic() < self._beat_at:
            return
        self._beat_at = time.monotonic() + BEAT_SECONDS
        running, waiting = self._under_way() if self.replica.state == Replica.State.WELL else (0, 0)
        self.replica.running, self.replica.waiting = running, waiting
        self._own(running=running, waiting=waiting)

    def _own(self, **seen: int) -> None:
        self.replica.seen_at = timezone.now()
        mine = Replica.objects.filter(pk=self.replica.pk, agent=self._id)
        if not mine.update(seen_at=self.replica.seen_at, **seen):
            raise Fenced(f"Another agent looks after {self.replica}, or it was removed.")

    def _under_way(self) -> tuple[int, int]:
        """Calls running and waiting, as the engine counts them; none where it does not say."""
        try:
            said = self._eye.metrics()
        except EngineError:
            return 0, 0
        return int(said.get("vllm:num_requests_running", 0)), int(said.get("vllm:num_requests_waiting", 0))

    # What should be there and is not

    def _lose(self, here: Iterable[Residence], present: set[str]) -> bool:
        """Takes from the gateways what the engine has lost, as after a restart."""
        lost = False
        for one in here:
            again = one.start != self.replica.start
            if one.state == State.FAILED and again:
                self._move(one, State.FETCHING)
            elif one.state == State.ELIGIBLE and (again or one.adapter.engine_name not in present):
                log.warning("%s has lost %s.", self.replica, one.adapter)
                self._move(one, State.FETCHING, "the engine has lost it")
                lost = True
        return lost

    def _bring(self, coming: list[Residence]) -> bool:
        """Fetches, loads and probes; one drain for all of them."""
        ready = [(one, path) for one in coming if (path := self._fetch(one))]
        if not ready:
            return False
        drained = replicas.begin_drain(self.replica)
        try:
            if drained:
                self._wait_until_idle()
            for one, path in ready:
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
            path = self._cache / adapter.digest
            if path.exists():
                verified = canonical.digest(canonical.manifest(path)) == adapter.digest
                if verified:
                    return path
                artifacts.remove(path)  # somebody changed it here
            artifacts.store().fetch(signed["predicate"]["files"], adapter.digest, path)
        except VerificationError as error:
            self._fail(residence, str(error))
        except OSError as error:
            self._retry(residence, f"The store of artefacts: {error}")
        else:
            return path
        return None

    def _load(self, residence: Residence, path: Path) -> None:
        adapter = residence.adapter
        self.replica.loads += 1
        self._own(loads=self.replica.loads)
        residence.load_epoch, residence.start = self.replica.loads, self.replica.start
        self._move(residence, State.LOADING)
        try:
            self.engine.load(adapter.engine_name, path)
            self._move(residence, State.PROBING)
            self._probe(residence)
        except known.WrongAnswer as error:
            self.engine.unload(adapter.engine_name)
            self._fail(residence, f"It does not answer as it did when it was trained: {error}.")
        except (known.Malformed, OSError) as error:
            self._fail(residence, f"Its known answers cannot be read: {error}.")
        except EngineError as error:
            refused = CLIENT_ERROR <= error.status < SERVER_ERROR
            (self._fail if refused else self._retry)(residence, str(error))
        else:
            self._move(residence, State.ELIGIBLE)
            log.info("%s answers on %s (load %d).", adapter, self.replica, residence.load_epoch)
            self._ask_again()

    def _wait_until_idle(self) -> None:
        """Until the calls that came before the drain have ended; a long stream is not waited for."""
        deadline, quiet = time.monotonic() + DRAIN_SECONDS, 0
        while time.monotonic() < deadline:
            quiet = quiet + 1 if not any(self._under_way()) else 0
            if quiet > 1:  # one that was admitted before may have been on its way at the first look
                return
            time.sleep(0.1)
        log.warning("%s loads beside calls that last longer than %g s.", self.replica, DRAIN_SECONDS)

    # What should not be there

    def _leave(self, residence: Residence) -> bool:
        """Unloads once nobody waits for its answer; whether something was done."""
        name = residence.adapter.engine_name
        if residence.state != State.LEAVING:
            self._move(residence, State.LEAVING)
        if _open_calls(name):
            return False
        self.engine.unload(name)
        if name in self.engine.models():
            self._move(residence, State.LEAVING, "the engine says it is unloaded, and still serves it")
            return False
        artifacts.remove(self._cache / residence.adapter.digest)
        residence.delete()
        log.info("%s has left %s.", residence.adapter, self.replica)
        self._ask_again()
        return True

    def _sweep(self, present: set[str]) -> bool:
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

    # Whether they are what they are called

    def _probe(self, residence: Residence) -> None:
        """Asks for the known answers; raises WrongAnswer, Malformed, EngineError or OSError."""
        adapter = residence.adapter
        expected = known.parse((self._cache / adapter.digest / known.NAME).read_bytes())
        answers = [self.engine.greedy(adapter.engine_name, case.prompt, len(case.tokens)) for case in expected.cases]
        known.check(expected, answers)
        residence.probed_at = timezone.now()

    def _ask_again(self) -> None:
        """After a change in the engine everybody's known answers are asked for, one a tick."""
        eligible = self.replica.residences.filter(state=State.ELIGIBLE)
        self._due = list(eligible.order_by(F("probed_at").asc(nulls_first=True)).values_list("pk", flat=True))
        self._probe_at = time.monotonic() + PROBE_SECONDS

    def _probe_next(self) -> bool:
        if time.monotonic() >= self._probe_at:
            self._ask_again()
        if not self._due:
            return False
        rows = self.replica.residences.select_related("adapter__tenant")
        residence = rows.filter(pk=self._due.pop(0), state=State.ELIGIBLE).first()
        if residence is None:
            return True
        try:
            self._probe(residence)
            residence.save(update_fields=["probed_at"])
        except known.WrongAnswer as error:
            self._fail(residence, f"It no longer answers as it did when it was trained: {error}.")
        except OSError as error:
            log.warning("%s: %s", residence, error)
        return bool(self._due)

    # What becomes of a residence

    def _retry(self, residence: Residence, note: str) -> None:
        self._later[residence.pk] = time.monotonic() + RETRY_SECONDS
        log.warning("%s: %s", residence, note)
        self._move(residence, State.FETCHING, note)

    def _fail(self, residence: Residence, note: str) -> None:
        log.error("%s is not served by %s: %s", residence.adapter, self.replica, note)
        residence.start = self.replica.start
        self._move(residence, State.FAILED, note)

    def _move(self, residence: Residence, state: State, note: str = "") -> None:
        """Gateways hear of it where it is about who answers."""
        told = State.ELIGIBLE in (residence.state, state)
        residence.state, residence.note = state, note[:300]
        with transaction.atomic():
            residence.save()
            if told:
                epochs.raise_(residence.adapter.tenant)


def _base_of(model: dict[str, str]) -> tuple[BaseModel | None, Replica.State, str]:
    """The base model that an engine serves; none, and why, if it is not one that was entered, file by file."""
    base = BaseModel.objects.filter(name=model["id"]).first()
    if base is None:
        return None, Replica.State.STRANGE, f"It serves {model['id']}, which is no base model here. Enter it first."
    root = Path(str(model.get("root") or ""))
    if base.digest and root.is_dir() and canonical.digest(canonical.manifest(root)) != base.digest:
        note = f"Its files are not those of {base} as it was entered. Enter them anew, or start it with the right ones."
        return base, Replica.State.STRANGE, note
    return base, Replica.State.WELL, ""


def _open_calls(name: str) -> int:
    """How many admitted calls have not ended that go to the engine's model `name`, whichever gateway has them."""
    count = 0
    for row in counters.connect().hvals(metering.HOLDS):
        try:
            count += metering.read_hold(str(row)).event.served == name
        except metering.UnreadableEvent:
            continue
    return count
