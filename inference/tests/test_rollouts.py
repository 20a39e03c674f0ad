"""A rollout: weights hold, callers stick to their arm, strangers see nothing, every change holds from the next call."""

import httpx2
import pytest

from inference import aliases, registry, rollouts
from inference.gateway.snapshot import Route, Target
from inference.models import Adapter, Alias, Rollout
from inference.tests.signed import answering
from tenants import keys
from tenants.models import AuditEntry

pytestmark = pytest.mark.journey


@pytest.fixture
def alias(cast, base):
    return aliases.create(cast.acme, "bot", base, cast.engineer)


@pytest.fixture
def loaded(publish):
    """Like `publish`, and in the state that a load ends with."""

    def make(*args):
        return answering(publish(*args))

    return make


def arm(serving, key, user):
    response = serving.post(key, {"model": "bot", "user": user})
    assert response.status_code == 200
    return response.headers["x-paramstack-arm"]


def test_callers_stick_and_a_growing_weight_keeps_them():
    def taken(weight):
        route = Route("bot", Target("a", "", 1, 1, 1), Target("b", "", 1, 1, 1), weight, "salt", is_alias=True)
        arms = {user: route.choose(f"user-{user}") for user in range(10_000)}
        return {user for user, choice in arms.items() if choice and choice.arm == "challenger"}

    tenth, half = taken(1_000), taken(5_000)
    assert 900 < len(tenth) < 1_100
    assert 4_850 < len(half) < 5_150
    assert tenth < half
    assert taken(1_000) == tenth
    assert (taken(0), len(taken(10_000))) == (set(), 10_000)


def test_the_row_names_the_arm_its_probability_and_its_adapter(serving, key, alias, loaded, cast):
    adapter = loaded()
    rollouts.start(alias, adapter, cast.engineer, 2_500)
    arms = {user: arm(serving, key, user) for user in map(str, range(30))}
    assert set(arms.values()) == {"champion", "challenger"}
    assert {user: arm(serving, key, user) for user in arms} == arms
    rows = serving.rows()
    assert {(row.arm, row.weight_bp, row.served, row.adapter_digest) for row in rows} == {
        ("champion", 7_500, "demo-base", ""),
        ("challenger", 2_500, adapter.engine_name, adapter.digest),
    }


def test_every_change_holds_from_the_next_call(serving, key, alias, loaded, cast):
    first, second = loaded(), loaded()
    assert arm(serving, key, "u") == "champion"
    rollout = rollouts.start(alias, first, cast.engineer, 10_000)
    assert arm(serving, key, "u") == "challenger"
    rollouts.set_weight(rollout, cast.engineer, 0)
    assert arm(serving, key, "u") == "champion"
    rollouts.promote(rollout, cast.engineer)
    assert arm(serving, key, "u") == "champion"
    assert serving.engine.asked[-1]["model"] == first.engine_name
    canary = rollouts.start(alias, second, cast.engineer, 10_000)
    assert arm(serving, key, "u") == "challenger"
    rollouts.stop(canary, cast.engineer, "slow")
    assert arm(serving, key, "u") == "champion"
    assert serving.engine.asked[-1]["model"] == first.engine_name


def test_a_strangers_key_sees_nothing_of_another_tenant(serving, key, alias, loaded, cast):
    adapter = loaded()
    stranger = keys.create(cast.globex, "test")[1]

    def names(text):
        headers = {"authorization": f"Bearer {text}"}
        return [card["id"] for card in httpx2.get(f"{serving.url}/models", headers=headers).json()["data"]]

    assert names(key) == ["demo-base", "destek-v1", "bot"]
    assert names(stranger) == ["demo-base"]
    for model in ("bot", "destek-v1", adapter.engine_name):
        assert serving.post(stranger, {"model": model}).status_code == 404
    assert serving.post(key, {"model": adapter.engine_name}).status_code == 404  # the engine's name is not a model


def test_an_alias_goes_before_a_base_model_of_its_name(serving, key, cast, base, loaded):
    alias = aliases.create(cast.acme, "demo-base", base)
    rollouts.start(alias, loaded(), None, 10_000)
    assert serving.post(key).headers["x-paramstack-arm"] == "challenger"


@pytest.mark.django_db
class TestStates:
    def test_what_cannot_serve_is_refused(self, alias, loaded, publish, cast, base):
        with pytest.raises(aliases.NotServable, match="loaded"):
            rollouts.start(alias, publish(), cast.engineer)
        with pytest.raises(aliases.NotServable, match="tenant"):
            rollouts.start(alias, loaded("x", cast.globex), cast.engineer)
        other = loaded()
        other.base = type(base).objects.create(name="other", source="/other")
        other.save()
        with pytest.raises(aliases.NotServable, match="other"):
            rollouts.start(alias, other, cast.engineer)
        with pytest.raises(rollouts.BadWeight):
            rollouts.start(alias, loaded(), cast.engineer, 10_001)
        assert not Rollout.objects.exists()

    def test_one_rollout_at_a_time(self, alias, loaded, cast):
        rollouts.start(alias, loaded(), cast.engineer)
        with pytest.raises(rollouts.AlreadyRunning, match="bot"):
            rollouts.start(alias, loaded(), cast.engineer)
        assert Rollout.objects.count() == 1

    def test_what_has_ended_does_not_change(self, alias, loaded, cast):
        rollout = rollouts.start(alias, loaded(), cast.engineer)
        stale = Rollout.objects.get()
        rollouts.stop(rollout, cast.engineer)
        for verb in (rollouts.stop, rollouts.promote):
            with pytest.raises(rollouts.NotRunning):
                verb(stale, cast.engineer)
        with pytest.raises(rollouts.NotRunning):
            rollouts.set_weight(stale, cast.engineer, 5_000)
        assert Alias.objects.get().challenger is None

    def test_promoting_makes_the_challenger_champion_and_it_is_not_rolled_out_again(self, alias, loaded, cast):
        adapter = loaded()
        rollout = rollouts.promote(rollouts.start(alias, adapter, cast.engineer), cast.engineer)
        alias.refresh_from_db()
        assert (alias.champion, alias.challenger, alias.challenger_bp) == (adapter, None, 0)
        assert (rollout.state, rollout.weight_bp) == ("done", 10_000)
        with pytest.raises(aliases.NotServable, match="already"):
            rollouts.start(alias, adapter, cast.engineer)

    def test_history_and_audit_tell_who_did_what(self, alias, loaded, cast):
        before = cast.acme.epoch
        rollout = rollouts.start(alias, loaded(), cast.engineer)
        rollouts.set_weight(rollout, cast.owner, 5_000)
        rollouts.stop(rollout, None, "p95 latency")
        told = list(rollout.events.values_list("actor__username", "state", "weight_bp", "note"))
        assert told == [
            ("engineer", "running", 1_000, ""),
            ("owner", "running", 5_000, ""),
            (None, "rolled_back", 0, "p95 latency"),
        ]
        entries = AuditEntry.objects.filter(action__startswith="rollout.").order_by("pk")
        assert list(entries.values_list("action", flat=True)) == ["rollout.start", "rollout.weight", "rollout.stop"]
        assert entries[1].before == {"state": "running", "weight_bp": 1_000}
        cast.acme.refresh_from_db()
        assert cast.acme.epoch == before + 3

    def test_a_loaded_adapter_of_a_rollout_stays_loaded(self, alias, loaded, cast):
        adapter = loaded()
        rollouts.start(alias, adapter, cast.engineer)
        with pytest.raises(registry.AdapterInUse):
            registry.unload(adapter)

    def test_an_adapter_that_was_unloaded_meanwhile_gets_no_calls(self, alias, loaded, cast):
        adapter = loaded()
        Adapter.objects.update(state=Adapter.State.REGISTERED)
        with pytest.raises(aliases.NotServable, match="not loaded"):
            rollouts.start(alias, adapter, cast.engineer)
        assert not Rollout.objects.exists()
