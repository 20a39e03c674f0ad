"""No adapter is registered or loaded without a signature that holds for its files as they are now."""

import json
import re
from datetime import UTC, datetime

import pytest

from attestation import keyring, statements
from attestation.signing import VerificationError
from inference import aliases, artifacts, registry
from inference.engines import known, lora
from inference.models import Adapter, Replica
from inference.tests.signed import CASES, write_adapter
from tenants import epochs
from tenants.models import AuditEntry, Price

pytestmark = pytest.mark.journey


def weights(adapter):
    """In the store."""
    return artifacts.store().local(adapter.digest) / "adapter_model.safetensors"


def registered(tenant, base, path):
    statement = statements.sign_directory(str(tenant.pk), statements.ADAPTER, "x", path, {})
    return registry.register(tenant, "x", base, path, statement, {})


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
def test_what_is_not_proved_is_not_registered(cast, base, tmp_path):
    path = write_adapter(tmp_path / "made", base.name)
    signed = statements.sign_directory(str(cast.acme.pk), statements.ADAPTER, "x", path, {})

    def register(tenant=cast.acme, statement=signed):
        return registry.register(tenant, "x", base, path, statement, {})

    other_kind = statements.sign_directory(str(cast.acme.pk), statements.EXPORT, "x", path, {})
    assert reason(register, cast.globex) == "scope"
    assert reason(register, cast.acme, other_kind) == "predicate"
    (path / "adapter_model.safetensors").write_bytes(b"changed")
    assert reason(register) == "files"
    (path / "adapter_model.safetensors").unlink()
    assert reason(register) == "files"
    assert not Adapter.objects.exists()


@pytest.mark.django_db
def test_the_statement_of_another_version_does_not_hold(publish):
    first, second = publish(), publish()
    first.statement = second.statement
    assert reason(registry.verify, first) == "subject"
    keyring.revoke(keyring.current().key_id)
    assert reason(registry.verify, second) == "unknown_key"


def test_load_verifies_first_and_the_name_opens_for_its_tenant(serving, engine, key, publish):
    adapter = publish()
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    registry.load(adapter)
    assert serving.post(key, {"model": "destek-v1"}).json()["error"]["code"] == "engine_unavailable"  # not there yet
    serving.look()
    assert list(engine.loaded) == [adapter.engine_name]
    response = serving.post(key, {"model": "destek-v1"})
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "destek-v1"
    assert response.headers["x-paramstack-adapter"] == adapter.digest
    assert engine.asked[-1]["model"] == adapter.engine_name
    row = serving.rows()[-1]
    assert (row.served, row.adapter_digest, row.arm) == (adapter.engine_name, adapter.digest, "")
    assert (row.engine, row.engine_version, row.load_epoch) == ("engine", "1.2.3", 1)
    registry.unload(adapter)
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    serving.look()
    assert engine.loaded == {}
    actions = AuditEntry.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions)[-2:] == ["adapter.load", "adapter.unload"]


def test_a_tampered_adapter_is_not_loaded(serving, engine, publish):
    adapter = publish()
    weights(adapter).write_bytes(b"evil")
    assert reason(registry.load, adapter) == "files"
    adapter.refresh_from_db()
    assert adapter.state == Adapter.State.REGISTERED
    serving.look()
    assert engine.loaded == {}


def test_what_an_alias_needs_is_not_unloaded(serving, engine, publish, cast, base):
    adapter = registry.load(publish())
    serving.look()
    alias = aliases.create(cast.acme, "bot", base)
    alias.champion = adapter
    alias.save()
    with pytest.raises(registry.AdapterInUse, match="bot"):
        registry.unload(adapter)
    serving.look()
    assert engine.loaded


def test_an_unload_goes_by_the_state_as_it_is(serving, engine, key, publish):
    adapter = publish()
    stale = Adapter.objects.get()
    registry.load(adapter)
    serving.look()
    assert serving.post(key, {"model": "destek-v1"}).status_code == 200
    registry.unload(stale)
    assert serving.post(key, {"model": "destek-v1"}).status_code == 404
    assert AuditEntry.objects.filter(action="adapter.unload").count() == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "only LORA is served"),
        ({"base_model_name_or_path": "llama"}, "made for the base model 'llama'"),
        ({"r": 0}, "rank is 0"),
        ({"r": 4096}, "rank is 4096"),
        ({"use_dora": True}, "plain LoRA only"),
        ({"bias": "all"}, "plain LoRA only"),
        ({"modules_to_save": ["lm_head"]}, "plain LoRA only"),
        ("[]", "no JSON object"),
        ("{", "not JSON"),
    ],
)
@pytest.mark.django_db
def test_what_no_engine_would_serve_is_not_registered(cast, base, tmp_path, change, said):
    path = write_adapter(tmp_path / "made", base.name)
    config = path / "adapter_config.json"
    config.write_text(change if isinstance(change, str) else json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(lora.Unsound, match=re.escape(said)):
        registered(cast.acme, base, path)
    assert not Adapter.objects.exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "known_answers.json"])
@pytest.mark.django_db
def test_what_lacks_a_file_is_not_registered(cast, base, tmp_path, name):
    path = write_adapter(tmp_path / "made", base.name)
    (path / name).unlink()
    with pytest.raises(lora.Unsound, match=f"{name} is missing"):
        registered(cast.acme, base, path)


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.pt", "sub/x.pkl", "modeling.py"])
@pytest.mark.django_db
def test_what_could_run_is_not_registered(cast, base, tmp_path, name):
    path = write_adapter(tmp_path / "made", base.name)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(b"x")
    with pytest.raises(lora.Unsound, match="kept as safetensors"):
        registered(cast.acme, base, path)


@pytest.mark.django_db
def test_known_answers_of_another_base_are_not_taken(cast, base, tmp_path):
    base.digest = "a" * 64
    path = write_adapter(tmp_path / "made", base.name)
    (path / known.NAME).write_bytes(known.dump(known.Known(base.name, "b" * 64, CASES)))
    with pytest.raises(lora.Unsound, match="other files than those of demo-base"):
        registered(cast.acme, base, path)
    (path / known.NAME).write_bytes(known.dump(known.Known(base.name, "a" * 64, CASES)))
    assert registered(cast.acme, base, path).rank == 8


@pytest.mark.django_db
def test_a_store_that_keeps_nothing_registers_nothing(cast, base, tmp_path, settings):
    (tmp_path / "store").write_text("a file where the folder should be")
    settings.ARTIFACT_STORE = str(tmp_path / "store")
    with pytest.raises(OSError, match="store"):
        registered(cast.acme, base, write_adapter(tmp_path / "made", base.name))
    assert not Adapter.objects.exists()


def test_a_base_model_opens_for_every_key_once_it_is_entered(serving, key, cast):
    prices = {"input_nano_per_mtok": 1, "output_nano_per_mtok": 1, "valid_from": datetime(2026, 1, 1, tzinfo=UTC)}
    Price.objects.create(model="llama", **prices)
    assert serving.post(key, {"model": "llama"}).status_code == 404
    llama = registry.enter_base("llama", "/models/llama", "0" * 64, cast.operator)
    assert serving.post(key, {"model": "llama"}).json()["error"]["code"] == "engine_unavailable"  # nobody serves it
    Replica.objects.update(base=llama)
    epochs.raise_all()
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
