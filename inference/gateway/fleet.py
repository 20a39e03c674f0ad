"""The engines: which replica answers a call, which of them are well, and one more try before the first byte."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence

from inference.gateway.background import Background
from inference.gateway.call import Call
from inference.gateway.snapshot import Host
from inference.gateway.upstream import BROKEN, EngineUnavailable, Response, Upstream

log = logging.getLogger(__name__)
TRIES = 3  # replicas that one call is sent to at most
TRIPS = 3  # failures in a row after which a replica gets nothing until it says that it is well
LOOK_SECONDS = 0.5  # between looks at replicas that are not well
FORGET_SECONDS = 600.0  # a replica that nobody has asked for so long is let go


class Replica:
    def __init__(self, host: Host) -> None:
        self.upstream = Upstream(host.url, host.secret)
        self.failures, self.used_at = 0, 0.0

    @property
    def well(self) -> bool:
        return self.failures < TRIPS


class Fleet:
    """Replicas by address and secret, opened as snapshots name them."""

    def __init__(self) -> None:
        self._replicas: dict[tuple[str, str], Replica] = {}
        self._keeping = Background(self._keep, lambda: LOOK_SECONDS)

    def start(self) -> None:
        self._keeping.start()

    async def close(self) -> None:
        await self._keeping.close()
        for replica in self._replicas.values():
            replica.upstream.close()

    async def post(self, call: Call, payload: bytes) -> Response:
        """The least loaded replica's answer, its body not read yet; another's where that one has said nothing.

        Raises EngineUnavailable, or EngineRefused where one understood and said no.
        """
        tried = 0
        served, path, request_id = call.target.served, call.request.operation.path, call.event.request_id
        for host, replica in self._candidates(call.target.hosts):
            call.host, replica.used_at = host, time.monotonic()
            try:
                response = await replica.upstream.post(call, served, path, payload, request_id)
            except EngineUnavailable as error:
                if call.over:
                    raise
                tried += 1
                if error.is_sick:
                    replica.failures += 1
                    if replica.failures == TRIPS:
                        log.error("The engine %s gets no calls until it is well again.", host.name)
                if tried >= TRIES or tried >= len(call.target.hosts):
                    raise
            else:
                replica.failures = 0
                return response
        raise EngineUnavailable(served, "no engine serves it" if not tried else "no engine is well")

    def _candidates(self, hosts: Sequence[Host]) -> list[tuple[Host, Replica]]:
        """Those that are well, least loaded first."""
        found = [(host, replica) for host in hosts if (replica := self._replica(host)).failures < TRIPS]
        if len(found) > 1:
            random.shuffle(found)
            found.sort(key=lambda pair: pair[1].upstream.busy)
        return found

    def _replica(self, host: Host) -> Replica:
        replica = self._replicas.get((host.url, host.secret))
        if replica is None:
            replica = self._replicas[host.url, host.secret] = Replica(host)
        return replica

    async def _keep(self) -> None:
        now = time.monotonic()
        for place, replica in list(self._replicas.items()):
            replica.upstream.tidy(now)
            if now - replica.used_at > FORGET_SECONDS and not replica.upstream.busy:
                replica.upstream.close()
                del self._replicas[place]
        await asyncio.gather(*(_look(one) for one in self._replicas.values() if not one.well))


async def _look(replica: Replica) -> None:
    with contextlib.suppress(*BROKEN):
        if await replica.upstream.is_well():
            replica.failures = 0
            log.warning("The engine at %s is well again.", replica.upstream.url)
