"""Snapshots in memory: one a tenant, found by key id. What nobody knows is remembered for a moment, and rationed.

An epoch that moved is seen by admission and nowhere else, so nothing here grows old by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable

from inference.gateway.snapshot import Loader, TenantSnapshot

UNKNOWN_SECONDS = 5.0
LOOKUPS = 8  # of unknown keys at once: a flood of them must not keep the threads from everybody else


class TooManyUnknown(Exception):
    """An address asks for more keys that nobody knows than one that mistypes would."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"wait {wait:g} s")
        self.wait = wait


class Cache:
    """`loaded` is told of every snapshot that was read."""

    CAPACITY = 20_000  # of tenants, and of unknown keys

    def __init__(self, load: Loader, loaded: Callable[[TenantSnapshot], None]) -> None:
        self._load, self._loaded = load, loaded
        self._snapshots: dict[str, TenantSnapshot] = {}  # by tenant
        self._tenants: dict[str, str] = {}  # key id -> tenant
        self._unknown: dict[str, float] = {}  # key id -> when it may be asked for again
        self._loading: dict[str, asyncio.Task[TenantSnapshot | None]] = {}  # by tenant, or by key id before it is known
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._strangers = Strangers()

    def known(self, key_id: str) -> TenantSnapshot | None:
        return self._snapshots.get(self._tenants.get(key_id, ""))

    async def find(self, key_id: str, address: str) -> TenantSnapshot | None:
        """The snapshot with that key, read if need be; raises TooManyUnknown, or what the loader raises."""
        if found := self.known(key_id):
            return found
        if self._unknown.get(key_id, 0.0) > time.monotonic():
            return None
        async with self._lookups:
            if found := self.known(key_id):
                return found
            if wait := self._strangers.wait(address):
                raise TooManyUnknown(wait)
            found = await self._join(key_id)
            if found is None or key_id not in found.keys:
                self._strangers.count(address)
                _bound(self._unknown, self.CAPACITY)[key_id] = time.monotonic() + UNKNOWN_SECONDS
                return None
            return found

    async def newer(self, key_id: str, old: TenantSnapshot) -> TenantSnapshot | None:
        """Another snapshot of the same tenant than `old`: what somebody has read since, or else is read now."""
        found = self._snapshots.get(old.tenant)
        return found if found and found is not old else await self._join(key_id, old.tenant)

    async def _join(self, key_id: str, tenant: str = "") -> TenantSnapshot | None:
        """One load at a time for the same thing, whoever waits for it."""
        name = tenant or key_id
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._read(key_id))
            task.add_done_callback(lambda _: self._loading.pop(name))
        return await asyncio.shield(task)

    async def _read(self, key_id: str) -> TenantSnapshot | None:
        snapshot = await asyncio.to_thread(self._load, key_id)
        if snapshot is None:
            return None
        self._loaded(snapshot)
        old = self._snapshots.get(snapshot.tenant)
        if old and old.epoch > snapshot.epoch:
            return old  # a slow load: somebody has read more meanwhile
        self._forget(snapshot.tenant)
        while len(self._snapshots) >= self.CAPACITY:
            self._forget(next(iter(self._snapshots)))
        self._snapshots[snapshot.tenant] = snapshot
        self._tenants.update(dict.fromkeys(snapshot.keys, snapshot.tenant))
        return snapshot

    def _forget(self, tenant: str) -> None:
        if old := self._snapshots.pop(tenant, None):
            for key_id in old.keys:
                self._tenants.pop(key_id, None)


class Strangers:
    """Look-ups of unknown keys by address: BURST at once, then one every INTERVAL seconds (GCRA in process)."""

    BURST, INTERVAL = 20, 1.0
    CAPACITY = 10_000  # addresses; the one that was seen longest ago goes first

    def __init__(self) -> None:
        self._full: dict[str, float] = {}  # network -> when all of its look-ups are back

    def wait(self, address: str) -> float:
        """Seconds until one more may pass; 0: now."""
        ahead = self._full.get(network(address), 0.0) - time.monotonic()
        return max(0.0, ahead - (self.BURST - 1) * self.INTERVAL)

    def count(self, address: str) -> None:
        name, now = network(address), time.monotonic()
        full = max(self._full.pop(name, 0.0), now) + self.INTERVAL
        _bound(self._full, self.CAPACITY)[name] = full


def network(address: str) -> str:
    """Who counts as one: an IPv4 address, the /64 of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""  # a Unix socket
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Address(int(ip) >> 64 << 64))
    return str(ip)


def _bound(entries: dict[str, float], capacity: int) -> dict[str, float]:
    while len(entries) >= capacity:
        entries.pop(next(iter(entries)))
    return entries
