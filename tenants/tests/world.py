"""The atomic steps of `metering` against a real server, on a clock that the test moves."""

from __future__ import annotations

import redis
from django.utils import timezone

from tenants import counters, ledger, metering
from tenants.models import APIKey, UsageEvent, UsageMonth

MARK = f"{'ab' * 16}:1"
START = 1_795_600_000_000_000  # us; 2026-11-25
NEVER = 2**52
NONE = (None,) * 5
CLOCK = "test:clock"


class World:
    """One server. `now` is its clock in microseconds once a test has set it; until then it is the real one."""

    def __init__(self, url: str, mark: str = MARK) -> None:
        levels_too = {"decode_responses": True, "encoding_errors": "surrogateescape"}  # they are binary
        self.client = redis.Redis.from_url(url, **levels_too)
        self.mark, self.now = mark, 0

    def found(self, tenants=("t",), since=0) -> None:
        """A Redis whose counters the ledger vouches for."""
        self.client.hset(metering.STATE, mapping={"mark": self.mark, "sequence": "1", "since": str(since)})
        for tenant in tenants:
            self.client.hset(metering.EPOCHS, tenant, "1")

    def run(self, script, packed):
        if self.now:
            self.client.delete(CLOCK)
            self.client.rpush(CLOCK, self.now // 1_000_000, self.now % 1_000_000)
            script = script.replace("redis.call('TIME')", f"redis.call('LRANGE', '{CLOCK}', 0, -1)")
            assert "'TIME'" not in script
        return counters.run(self.client, script, packed)

    def event(self, id_, status="settled", **facts):
        named = {"tenant": "t", "key": "k", "day": "2026-11-25"} | facts
        return metering.Event(request_id=id_, status=status, model="m", served="m", **named)

    def admit(
        self, id_, tokens=0, hold=0, tenant_limits=NONE, key_limits=NONE, budget=10**15, seen=0, epoch=1, **facts
    ):
        event = self.event(id_, "estimated", **facts)
        terms = metering.Terms(self.mark, epoch, NEVER, event.day, budget, tenant_limits, key_limits)
        return metering.verdict(self.run(metering.ADMIT, metering.admit(event, terms, hold, tokens, seen)))

    def settle(self, id_, used=0, cost=0, status="settled", lapsed="", **facts):
        event = self.event(id_, status, output_tokens=used, cost_nano=cost, **facts)
        return metering.settlement(self.run(metering.SETTLE, metering.settle(event, self.mark, lapsed)))

    def renew(self, *sent):
        return self.run(metering.RENEW, metering.renew(sent))

    def month(self, tenant="t", month="202611"):
        return {name: int(n) for name, n in self.client.hgetall(f"{metering.MONTH}{tenant}:{month}").items()}

    def dump(self) -> dict[str, bytes]:
        """Every key as the server would keep it, for `restore`; the values as bytes."""
        with redis.Redis(connection_pool=_raw(self.client)) as raw:
            return {name.decode(): raw.dump(name) for name in raw.keys("ps:*")}

    def restore(self, kept) -> None:
        """The server as of `dump`, as after a restart with an older file."""
        with redis.Redis(connection_pool=_raw(self.client)) as raw:
            raw.flushdb()
            for name, data in kept.items():
                raw.restore(name, 0, data)


def _raw(client):
    pool = client.connection_pool
    return redis.ConnectionPool(
        connection_class=pool.connection_class, **(pool.connection_kwargs | {"decode_responses": False})
    )


class Stage(World):
    """A World of real tenants: Acme's key, the ledger's mark, rows and counters side by side."""

    def __init__(self, url: str, cast) -> None:
        super().__init__(url)
        self.acme, self.globex = str(cast.acme.pk), str(cast.globex.pk)
        self.key = APIKey.objects.create(pk="key-of-acme", tenant=cast.acme, name="web").pk
        self.day = timezone.now().date().isoformat()
        self.yyyymm = self.day[:4] + self.day[5:7]

    def event(self, id_, status="settled", **facts):
        named = {"tenant": self.acme, "key": self.key, "day": self.day}
        return super().event(id_, status, **(named | facts))

    def admit(self, id_, *args, **facts):
        self.mark = ledger.mark()
        return super().admit(id_, *args, **facts)

    def call(self, id_, used=10, cost=100, **facts):
        """A whole call, held at twice what it then costs."""
        assert self.admit(id_, 2 * used, 2 * cost, **facts).reason == ""
        return self.settle(id_, used, cost, **facts)

    def lapse(self, id_) -> None:
        """Its gateway has not renewed it for too long."""
        self.client.zadd(metering.LEASES, {id_: 1})

    def counted(self):
        """What the counters say of Acme's month."""
        return self.month(self.acme, self.yyyymm)

    def booked(self):
        """What the ledger says of Acme's month: (cost, cost without what corrections moved)."""
        month = UsageMonth.objects.get(tenant__pk=self.acme, month=self.yyyymm)
        return month.cost_nano, month.cost_nano - month.corrected_nano

    def rows(self, **which):
        return list(UsageEvent.objects.filter(**which).order_by("pk"))
