"""The agent: what is wanted on an engine is there, proved and alone; what it loses, another agent takes or an engine
confuses answers nobody.
"""

import threading
import time

import fsspec
import pytest
from django.utils import timezone

from attestation import canonical, vault
from attestation.signing import VerificationError
from inference import artifacts, registry, replicas
from inference.agent import Agent, Fenced
from inference.engines.client import EngineError
from inference.models import Adapter, Replica, Residence
from tenants import epochs

pytestmark = pytest.mark.journey
State = Residence.State
DESTEK = {"model": "destek-v1"}


def life(adapter):
    found = Residence.objects.get(adapter=adapter)
    return found.state, found.load_epoch


def cached(serving, adapter):
    return serving.agent.residents.cache / adapter.digest


@pytest.fixture
def loaded(serving, publish):
    """An adapter that answers."""
    adapter = registry.load(publish())
    serving.look()
    assert life(adapter) == (State.ELIGIBLE, 1)
    return adapter


def test_what_is_placed_is_whole_and_read_only(serving, loaded):
    place = cached(serving, loaded)
    assert canonical.digest(canonical.manifest(place)) == loaded.digest
    assert not place.stat().st_mode & 0o222
    assert not any(file.stat().st_mode & 0o222 for file in place.iterdir())
    assert serving.engine.loaded == {loaded.engine_name: str(place)}


def test_an_engine_that_restarted_gets_its_adapters_back_under_a_new_number(serving, loaded, key):
    assert serving.post(key, DESTEK).status_code == 200
    serving.engine.restart()
    serving.look()
    assert life(loaded) == (State.ELIGIBLE, 2)
    assert serving.post(key, DESTEK).status_code == 200
    assert [row.load_epoch for row in serving.rows()] == [1, 2]


def test_what_an_engine_lost_on_its_own_answers_nobody_until_it_is_back(serving, loaded, key):
    serving.engine.loaded.clear()
    serving.agent.residents.engine.load = lambda *_: (_ for _ in ()).throw(EngineError("full", 500))
    serving.look()
    assert life(loaded)[0] == State.FETCHING
    assert serving.post(key, DESTEK).json()["error"]["code"] == "engine_unavailable"
    assert "full" in Residence.objects.get().note
    del serving.agent.residents.engine.load
    serving.agent.residents.later.clear()
    serving.look()
    assert serving.post(key, DESTEK).status_code == 200


def test_one_load_number_is_never_two_loads(serving, loaded):
    registry.unload(loaded)
    serving.look()
    assert not Residence.objects.exists()
    registry.load(loaded)
    serving.look()
    assert life(loaded) == (State.ELIGIBLE, 2)


def test_an_engine_that_answers_as_something_else_is_not_believed(serving, publish, key):
    serving.engine.confused = True
    adapter = registry.load(publish())
    serving.look()
    assert life(adapter)[0] == State.FAILED
    assert Residence.objects.get().why == Residence.Why.UNPROVED
    assert serving.engine.loaded == {}
    assert serving.post(key, DESTEK).status_code == 503
    serving.engine.confused = False
    serving.look()
    assert life(adapter)[0] == State.FAILED  # a person looks at that, or the engine starts anew
    serving.engine.restart()
    serving.look()
    assert life(adapter)[0] == State.ELIGIBLE


def test_one_that_is_confused_later_is_found_by_the_next_load(serving, loaded, publish, key):
    assert serving.post(key, DESTEK).status_code == 200
    registry.load(publish("satis"))
    probe = serving.agent.residents.probe

    def confusing(residence):
        probe(residence)
        serving.engine.confused = True  # from the first load on

    serving.agent.residents.probe = confusing
    serving.look()
    assert life(loaded)[0] == State.FAILED
    assert serving.post(key, DESTEK).status_code == 503


def test_known_answers_are_asked_for_again_after_a_while(serving, loaded):
    before = Residence.objects.get().probed_at
    assert before
    serving.look()
    assert Residence.objects.filter(probed_at=before).exists()
    serving.agent.residents.probe_at = 0.0
    serving.look()
    assert Residence.objects.filter(probed_at__gt=before).exists()


@pytest.mark.parametrize("place", ["store", "host"])
def test_a_file_that_was_changed_is_not_loaded(serving, publish, place):
    adapter = registry.load(publish())
    if place == "host":
        serving.look()
        files = cached(serving, adapter)
        files.chmod(0o755)
        (files / "adapter_model.safetensors").chmod(0o644)
        (files / "adapter_model.safetensors").write_bytes(b"evil")
        serving.engine.restart()
        serving.look()
        assert life(adapter) == (State.ELIGIBLE, 2)  # fetched again
        assert canonical.digest(canonical.manifest(files)) == adapter.digest
    else:
        (artifacts.store().local(adapter.digest) / "adapter_model.safetensors").write_bytes(b"evil")
        serving.look()
        assert life(adapter)[0] == State.FAILED
        assert "adapter_model.safetensors" in Residence.objects.get().note
        assert serving.engine.loaded == {}
        assert not cached(serving, adapter).exists()


def test_a_store_that_does_not_answer_is_asked_again(serving, publish, settings):
    adapter = registry.load(publish())
    right = settings.ARTIFACT_STORE
    settings.ARTIFACT_STORE = right + "-elsewhere"
    serving.look()
    assert life(adapter)[0] == State.FETCHING
    settings.ARTIFACT_STORE = right
    serving.agent.residents.later.clear()
    serving.look()
    assert life(adapter)[0] == State.ELIGIBLE


def test_any_store_of_fsspec_s_will_do(serving, publish, settings, key):
    settings.ARTIFACT_STORE = "memory://adapters"
    adapter = registry.load(publish())
    assert fsspec.filesystem("memory").exists(f"/adapters/{adapter.digest}/attestation.json")
    serving.look()
    assert serving.post(key, DESTEK).status_code == 200
    with fsspec.open(f"memory://adapters/{adapter.digest}/adapter_config.json", "wb") as file:
        file.write(b"{}")
    with pytest.raises(VerificationError):
        registry.verify(adapter)


def test_an_adapter_leaves_when_its_last_call_has_ended(serving, loaded, key):
    serving.engine.pause, serving.engine.tokens = 0.3, ["a"] * 8
    stream = serving.stream(key, DESTEK)
    next(stream)
    registry.unload(loaded)
    serving.look()
    assert life(loaded)[0] == State.LEAVING
    assert list(serving.engine.loaded) == [loaded.engine_name]
    assert serving.post(key, DESTEK).status_code == 404
    assert len(list(stream)) > 4  # it ends in peace
    serving.look()
    assert serving.engine.loaded == {}
    assert not Residence.objects.exists()
    assert not cached(serving, loaded).exists()


def test_what_is_wanted_again_while_it_leaves_stays(serving, loaded, key):
    serving.engine.pause, serving.engine.tokens = 0.3, ["a"] * 4
    stream = serving.stream(key, DESTEK)
    next(stream)
    registry.unload(loaded)
    serving.look()
    assert life(loaded)[0] == State.LEAVING
    registry.load(loaded)
    serving.look()
    assert life(loaded) == (State.ELIGIBLE, 2)
    assert len(list(stream)) > 2
    assert serving.post(key, DESTEK).status_code == 200


def test_what_broke_off_in_the_middle_begins_anew(serving, publish):
    adapter = registry.load(publish())
    serving.engine.confused = True
    unload = serving.agent.residents.engine.unload

    def breaking(name):
        serving.agent.residents.engine.unload = unload
        raise EngineError("the connection broke")

    serving.agent.residents.engine.unload = breaking
    with pytest.raises(EngineError):
        serving.look()
    assert life(adapter)[0] == State.PROBING
    serving.look()
    assert (life(adapter)[0], serving.engine.loaded) == (State.FAILED, {})


def test_an_unload_that_the_engine_only_says_it_did_is_told(serving, loaded):
    serving.agent.residents.engine.unload = lambda name: None
    registry.unload(loaded)
    serving.look()
    assert Residence.objects.get().why == Residence.Why.STUCK
    del serving.agent.residents.engine.unload
    serving.look()
    assert not Residence.objects.exists()


def test_what_nobody_wants_is_unloaded_and_what_is_not_ours_is_left(serving, loaded, publish):
    stray = publish("satis")
    serving.engine.loaded |= {stray.engine_name: "/x", "somebody's": "/y"}
    serving.look()
    assert set(serving.engine.loaded) == {loaded.engine_name, "somebody's"}


def test_what_a_person_unloads_while_it_is_being_loaded_does_not_stay(serving, publish, key):
    adapter = registry.load(publish())
    probe = serving.agent.residents.probe

    def meanwhile(residence):
        probe(residence)
        registry.unload(Adapter.objects.get())

    serving.agent.residents.probe = meanwhile
    serving.look()
    adapter.refresh_from_db()
    assert adapter.state == Adapter.State.REGISTERED
    assert serving.engine.loaded == {}
    assert serving.post(key, DESTEK).status_code == 404


def test_an_engine_that_refuses_an_adapter_is_not_asked_again(serving, publish):
    adapter = registry.load(publish())
    asked = []

    def refuse(*told):
        asked.append(told)
        raise EngineError("rank 8 is greater than max_lora_rank 4", 400)

    serving.agent.residents.engine.load = refuse
    serving.look()
    serving.look()
    assert len(asked) == 1
    assert (life(adapter)[0], "max_lora_rank" in Residence.objects.get().note) == (State.FAILED, True)


class TestSpare:
    """With another replica of the same base model, which here answers at the same address."""

    @pytest.fixture
    def spare(self, serving, base):
        url = serving.agent.residents.engine.url
        facts = {"base": base, "state": "well", "start": "x", "seen_at": timezone.now()}
        made = Replica.objects.create(name="spare", url=url, **facts)
        epochs.raise_all()
        return made

    def test_nothing_is_loaded_beside_calls_and_new_ones_go_elsewhere(self, serving, spare, publish, key):
        load, idle = serving.agent.residents.engine.load, []

        def loading(*told):
            idle.append((serving.engine.under_way, Replica.objects.get(name="engine").draining))
            load(*told)

        serving.agent.residents.engine.load = loading
        serving.engine.under_way = 1
        registry.load(publish())
        worker = threading.Thread(target=serving.agent.settle)
        worker.start()
        while not Replica.objects.get(name="engine").draining:
            time.sleep(0.01)
        before = len(serving.rows())
        assert [serving.post(key).status_code for _ in range(5)] == [200] * 5
        assert {row.engine for row in serving.rows()[before:]} == {"spare"}
        assert idle == []
        serving.engine.under_way = 0
        worker.join(10)
        assert idle == [(0, True)]
        assert not Replica.objects.get(name="engine").draining
        engines: set[str] = set()
        while engines != {"engine", "spare"}:
            serving.post(key)
            engines.add(serving.rows()[-1].engine)

    def test_an_adapter_that_answers_only_there_goes_on_answering(self, serving, spare, loaded, key):
        assert replicas.begin_drain(serving.agent.sight.replica)
        assert serving.post(key, DESTEK).status_code == 200
        assert serving.rows()[-1].engine == "engine"

    def test_two_do_not_drain_at_once(self, serving, spare, publish):
        assert replicas.begin_drain(serving.agent.sight.replica)
        with pytest.raises(replicas.DrainBusy):
            replicas.begin_drain(spare)
        replicas.end_drain(serving.agent.sight.replica)
        assert replicas.begin_drain(spare)
        adapter = registry.load(publish())
        serving.look()
        assert life(adapter) == (State.FETCHING, 0)
        replicas.end_drain(spare)
        serving.look()
        assert life(adapter) == (State.ELIGIBLE, 1)

    def test_one_that_is_away_is_no_spare(self, serving, spare):
        Replica.objects.filter(name="spare").update(state="away")
        assert not replicas.begin_drain(serving.agent.sight.replica)

    def test_one_that_nobody_looks_after_is_no_spare_and_holds_nobody_up(self, serving, spare):
        Replica.objects.filter(name="spare").update(seen_at="2026-01-01T00:00:00Z", draining=True)
        assert not replicas.begin_drain(serving.agent.sight.replica)


class TestReplica:
    """What the row of an engine says."""

    def test_it_says_what_runs_and_how_much(self, serving, base):
        serving.engine.under_way = 3
        serving.agent.sight.beat_at = 0.0
        serving.look()
        row = Replica.objects.get()
        assert (row.state, row.base, row.version, row.running, row.waiting) == ("well", base, "1.2.3", 3, 0)
        assert replicas.is_attended(row)

    def test_an_engine_that_goes_away_and_comes_back(self, serving, key):
        serving.engine.secret = "another"
        serving.look()
        assert (Replica.objects.get().state, "No." in Replica.objects.get().note) == ("away", True)
        serving.engine.secret = ""
        serving.look()
        assert (Replica.objects.get().state, Replica.objects.get().note) == ("well", "")

    def test_an_unknown_base_model_serves_nobody_until_it_is_entered(self, serving, base, key):
        type(base).objects.update(name="renamed")
        serving.engine.restart()
        serving.look()
        row = Replica.objects.get()
        assert (row.state, row.base) == ("strange", None)
        assert "no base model here" in row.note
        type(base).objects.update(name="demo-base")
        serving.look()
        assert Replica.objects.get().state == "well"
        assert serving.post(key).status_code == 200

    def test_an_engine_with_other_files_than_entered_serves_nobody(self, serving, base, key, tmp_path, monkeypatch):
        (tmp_path / "config.json").write_text("{}")
        digest = canonical.digest(canonical.manifest(tmp_path))
        listing = [{"id": "demo-base", "root": str(tmp_path)}]
        monkeypatch.setattr(serving.agent.sight.engine, "listing", lambda: listing)
        type(base).objects.update(digest="0" * 64)
        serving.engine.restart()
        serving.look()
        assert Replica.objects.get().state == "strange"
        assert serving.post(key).json()["error"]["code"] == "engine_unavailable"
        type(base).objects.update(digest=digest)
        serving.look()
        assert Replica.objects.get().state == "well"
        assert serving.post(key).status_code == 200

    def test_its_key_rests_sealed_and_opens_only_for_it(self, serving, settings, tmp_path, key):
        settings.ENGINE_KEY_FILE = tmp_path / "engine.key"
        settings.ENGINE_KEY_FILE.write_text("s3cret")
        serving.engine.secret, serving.agent = "s3cret", None
        serving.look()
        row = Replica.objects.get()
        assert b"s3cret" not in bytes(row.secret)
        assert replicas.secret(row) == "s3cret"
        assert serving.post(key).status_code == 200
        row.name = "other"
        with pytest.raises(vault.Locked):
            replicas.secret(row)

    def test_two_agents_of_one_name_do_not_look_after_one_engine(self, serving, settings, tmp_path):
        told = ("engine", serving.agent.residents.engine.url, settings.ENGINE_KEY_FILE, tmp_path)
        with pytest.raises(replicas.Taken, match="a name of its own"):
            Agent(*told)
        Replica.objects.update(seen_at="2026-01-01T00:00:00Z")  # the first one was long silent
        other = Agent(*told)
        serving.agent.sight.beat_at = 0.0
        with pytest.raises(Fenced):
            serving.agent.tick()
        other.tick()

    def test_what_an_agent_left_half_done_its_successor_begins_anew(self, serving, loaded):
        Residence.objects.update(state=State.PROBING)
        serving.agent = None
        serving.look()
        assert life(loaded) == (State.ELIGIBLE, 2)
