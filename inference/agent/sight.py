"""What an agent sees of its engine, and the replica's row that says it."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from pathlib import Path

from django.utils import timezone

from attestation import canonical
from inference import replicas
from inference.engines import key
from inference.engines.client import Engine, EngineError
from inference.models import BaseModel, Replica

log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
LOOK_SECONDS = 5.0  # that an engine has to say how it is


class Fenced(Exception):
    """Another agent has taken over."""


class Sight:
    """Looks at the engine of the replica `name`, which answers at `url`. Raises replicas.Taken.

    An agent is its host and its directory, so that one that is started again goes on where the last one died.
    """

    def __init__(self, name: str, url: str, key_file: Path, cache: Path) -> None:
        self.engine = Engine(url, LOOK_SECONDS, key_file)
        self._key_file = key_file
        self._id = f"{socket.gethostname()[:60]}:{str(cache.resolve())[-59:]}"
        self.replica = replicas.claim(name, url, self._id)
        self.beat_at = 0.0  # monotonic
        self._read: tuple[tuple[str, Path] | None, str] = None, ""  # which files, and their digest

    def look(self) -> set[str] | None:
        """The names it serves, and the replica's row as it now is; nothing while it does not answer."""
        secret = key.read(self._key_file)
        try:
            told = self.engine.health()
            models = self.engine.listing()
            start = hashlib.sha256(f"{secret} {told.get('start', '')}".encode()).hexdigest()[:32]
            base, state, note = self.replica.base, self.replica.state, self.replica.note
            if start != self.replica.start or state != Replica.State.WELL or base is None:
                base, state, note = self._identify(models[0], start)
            version = self.engine.version() if start != self.replica.start else self.replica.version
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
            self.beat_at = 0.0
            self.own()
            replicas.save(self.replica, *changed)
        return {str(model["id"]) for model in models[1:]} if models and seen["state"] == Replica.State.WELL else None

    def beat(self) -> None:
        """Says now and then that somebody looks, and how busy the engine is; raises Fenced."""
        if time.monotonic() < self.beat_at:
            return
        self.beat_at = time.monotonic() + BEAT_SECONDS
        running, waiting = self.under_way() if self.replica.state == Replica.State.WELL else (0, 0)
        self.replica.running, self.replica.waiting = running, waiting
        self.own(running=running, waiting=waiting)

    def own(self, **seen: int) -> None:
        """Writes what was seen, if the replica is still ours; raises Fenced."""
        self.replica.seen_at = timezone.now()
        mine = Replica.objects.filter(pk=self.replica.pk, agent=self._id)
        if not mine.update(seen_at=self.replica.seen_at, **seen):
            raise Fenced(f"Another agent looks after {self.replica}, or it was removed.")

    def under_way(self) -> tuple[int, int]:
        """Calls running and waiting, as the engine counts them; none where it does not say."""
        try:
            said = self.engine.metrics()
        except EngineError:
            return 0, 0
        return int(said.get("vllm:num_requests_running", 0)), int(said.get("vllm:num_requests_waiting", 0))

    def _identify(self, model: dict[str, str], start: str) -> tuple[BaseModel | None, Replica.State, str]:
        """The base model it serves; if that is not one that was entered, file by file, it is a stranger, and why."""
        base = BaseModel.objects.filter(name=model["id"]).first()
        if base is None:
            note = f"It serves {model['id']}, which is no base model here. Enter it first."
            return None, Replica.State.STRANGE, note
        root = Path(str(model.get("root") or ""))
        if base.digest and root.is_dir() and self._digest(root, start) != base.digest:
            note = f"Its files are not those of {base} as it was entered. Enter them anew, or start it with those."
            return base, Replica.State.STRANGE, note
        return base, Replica.State.WELL, ""

    def _digest(self, root: Path, start: str) -> str:
        """Of the model's files; read once a start of the engine, for they can be many gigabytes."""
        if self._read[0] != (start, root):
            self._read = (start, root), canonical.digest(canonical.manifest(root))
        return self._read[1]
