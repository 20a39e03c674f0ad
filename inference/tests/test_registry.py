"""No adapter is registered or loaded without a signature that holds for its files as they are now."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation import keyring, statements
from attestation.signing import VerificationError
from inference import aliases, registry, tasks
from inference.engines import client
from inference.models import Adapter
from tenants.models import AuditEntry, Price

pytestmark = pytest.mark.journey

Loaded = Adapter.State.LOADED


def weights(adapter):
    return Path(adapter.path) / "adapter_model.safetensors"


def reason(verb, *args):
    with pytest.raises(VerificationError) as caught:
        verb(*args)
    assert str(caught.value)
    return caught.value.reason


@pytest.mark.django_db
def test_versions_count_up_and_carry_their_digest(publish, cast):
    first, second, other = publish(), publish(), publish("satis")
    assert [str(adapter) for adapter in (first, second, other)] == ["destek-v1", "destek-v2", "satis-v1"]
    assert first.digest == first.statement.subject_digest
    assert registry.verify(first)["subject"][0]["digest"]["sha256"] == first.digest


@pytest.mark.django_db
def test_what_is_not_proved_is_not_registered(publish, cast, base):
    signed = publish()
    Adapter.objects.all().delete()

    def register(tenant=cast.acme, statement=signed.statement):
        return registry.register(tenant, "x", base, signed.path, statement, {})

    other_kind = statements.sign_directory(str(cast.acme.pk), statements.EXPORT, "x", signed.path, {})
    assert reason(register, cast.globex) == "scope"
    assert reason(register, cast.acme, other_kind) == "predicate"
    weights(signed).write_bytes(b"changed")
    assert reason(register) == "files"
    weights(signed).unlink()
    assert reason(register) == "files"
    assert not Adapter.objects.exists()


@pytest.mark.django_db
def test_the_statement_of_another_version_does_not_hold(publish):
    first, second = publish(), publish()
    first.path = second.path
    assert reason(registry.verify, first) == "files"
    first.statement = second.statement
    assert reason(registry.verify, first) == "subject"
    keyring.revoke(keyring.current().key_id)
    assert reason(registry.verify, second) == "unknown_key"


def test_load_verifies_first_and_the_name_opens_for_its_tenant(serving, engine, key, publish):
    adapter = publish()
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    registry.load(adapter)
    assert engine.loaded == {adapter.engine_name: adapter.path}
    response = serving.post(key, {"model": "destek-v1"})
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "destek-v1"
    assert response.headers["x-paramstack-adapter"] == adapter.digest
    assert engine.asked[-1]["model"] == adapter.engine_name
    (row,) = serving.rows()
    assert (row.served, row.adapter_digest, row.arm) == (adapter.engine_name, adapter.digest, "")
    registry.unload(adapter)
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    assert engine.loaded == {}
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions)[-2:] == ["adapter.load", "adapter.unload"]


def test_a_tampered_adapter_is_not_loaded(serving, engine, publish):
    adapter = publish()
    weights(adapter).write_bytes(b"evil")
    assert reason(registry.load, adapter) == "files"
    assert engine.loaded == {}
    adapter.refresh_from_db()
    assert adapter.state == Adapter.State.REGISTERED


def test_with_the_engine_down_the_state_does_not_change(serving, engine, publish):
    adapter = publish()
    serving.stop_engine()
    with pytest.raises(client.EngineDown):
        registry.load(adapter)
    adapter.refresh_from_db()
    assert adapter.state == Adapter.State.REGISTERED


def test_what_an_alias_needs_is_not_unloaded(serving, engine, publish, cast, base):
    adapter = registry.load(publish())
    alias = aliases.create(cast.acme, "bot", base)
    alias.champion = adapter
    alias.save()
    with pytest.raises(registry.AdapterInUse, match="bot"):
        registry.unload(adapter)
    assert engine.loaded


def test_an_engine_that_restarted_gets_its_adapters_back_but_not_tampered_ones(serving, engine, publish):
    good, evil = registry.load(publish()), registry.load(publish())
    engine.loaded.clear()
    weights(evil).write_bytes(b"evil")
    assert tasks.reconcile_engine() == 1
    assert engine.loaded == {good.engine_name: good.path}
    assert tasks.reconcile_engine() == 0
    serving.stop_engine()
    assert tasks.reconcile_engine() == 0


@pytest.mark.parametrize("moment", ["verify", "load"])
def test_what_a_person_unloads_meanwhile_stays_unloaded(serving, engine, publish, monkeypatch, moment):
    adapter = registry.load(publish())
    engine.loaded.clear()
    owner, verb = (registry, "verify") if moment == "verify" else (client.Engine, "load")
    original = getattr(owner, verb)

    def interrupted(*args):
        answer = original(*args)
        registry.unload(Adapter.objects.get())
        return answer

    monkeypatch.setattr(owner, verb, interrupted)
    assert tasks.reconcile_engine() == 0
    adapter.refresh_from_db()
    assert adapter.state == Adapter.State.REGISTERED
    assert engine.loaded == {}


def test_an_unload_goes_by_the_state_as_it_is(serving, engine, key, publish):
    adapter = publish()
    stale = Adapter.objects.get()
    registry.load(adapter)
    assert serving.post(key, {"model": "destek-v1"}).status_code == 200
    registry.unload(stale)
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    assert AuditEntry.objects.filter(action="adapter.unload").count() == 1


def test_a_base_model_opens_for_every_key_once_it_is_entered(serving, key, cast):
    prices = {"input_nano_per_mtok": 1, "output_nano_per_mtok": 1, "valid_from": datetime(2026, 1, 1, tzinfo=UTC)}
    Price.objects.create(model="llama", **prices)
    assert serving.post(key, {"model": "llama"}).status_code == 404
    registry.enter_base("llama", "/models/llama", "0" * 64, cast.operator)
    assert serving.post(key, {"model": "llama"}).status_code == 200


@pytest.mark.django_db
def test_an_unknown_base_model_is_named(base):
    assert registry.base_model("demo-base") == base
    with pytest.raises(registry.UnknownBaseModel, match="llama"):
        registry.base_model("llama")


def test_the_engine_s_name_tells_two_contents_apart_whatever_a_tenant_is_called():
    from inference.models import Adapter
    from tenants.models import Tenant

    former = Adapter(tenant=Tenant(slug="acme"), name="bot", version=1, digest="a" * 64)
    newcomer = Adapter(tenant=Tenant(slug="acme"), name="bot", version=1, digest="b" * 64)
    assert former.engine_name != newcomer.engine_name
