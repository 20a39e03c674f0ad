"""Who may call: what each wrong key is told, what an unknown one costs, and what a lost key ends."""

import hashlib
import threading
import time
from datetime import timedelta

import httpx2
import pytest
from django.utils import timezone

from inference import registry, snapshots
from inference.gateway import cache, refusing
from inference.gateway.call import Meter
from inference.gateway.snapshot import Target
from inference.models import BaseModel
from inference.tests.conftest import ANSWER
from tenants import decisions, epochs, keys, keytext, metering, refusals
from tenants.models import APIKey, Tenant

pytestmark = pytest.mark.journey


def told(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


@pytest.fixture
def quick(monkeypatch):
    """Renewals every 100 ms."""
    monkeypatch.setattr(metering, "RENEW_SECONDS", 0.1)


@pytest.fixture
def loads(monkeypatch):
    """Counts the snapshots that were read."""
    read, load = [], snapshots.load

    def counted(key_id):
        read.append(key_id)
        return load(key_id)

    monkeypatch.setattr(snapshots, "load", counted)
    return read


def test_each_key_that_opens_nothing_is_told_as_much_as_it_may_know(serving, key, cast):
    _, _, key_id, secret, crc = key.split("_")
    mistyped = f"ps_live_{key_id}_{secret[:-1]}{'a' if secret[-1] != 'a' else 'b'}_{crc}"
    wrong = keytext.write(key_id, secret[::-1])
    unknown = keytext.write(*keytext.generate())
    reader = keys.create(cast.acme, "reader", scopes=["usage"])[1]
    soon = timezone.now() + timedelta(milliseconds=200)
    expired = keys.create(cast.acme, "old", expires_at=soon)[1]
    revoked_key, revoked = keys.create(cast.acme, "gone")
    keys.revoke(revoked_key, cast.owner)
    time.sleep(0.25)
    malformed = (401, "invalid_api_key", str(keytext.Malformed(told(serving.post("sk-1"))[2])))
    assert "from ps_live_ to its last character" in malformed[2]
    for text in ("?", key[:-1], mistyped):
        assert told(serving.post(text)) == malformed
    for text in (wrong, unknown, reader):
        assert told(serving.post(text)) == (401, "invalid_api_key", refusing.UNKNOWN)
    for text, why in ((expired, "expired"), (revoked, "revoked")):
        assert told(serving.post(text)) == (401, "invalid_api_key", refusing.ENDED[why])
        _, _, ended_id, ended_secret, _ = text.split("_")
        stolen = keytext.write(ended_id, ended_secret[::-1])
        assert told(serving.post(stolen)) == (401, "invalid_api_key", refusing.UNKNOWN)


def test_a_key_expires_under_a_gateway_that_knows_it(serving, cast):
    text = keys.create(cast.acme, "short", expires_at=timezone.now() + timedelta(milliseconds=400))[1]
    assert serving.post(text).status_code == 200
    time.sleep(0.45)
    assert told(serving.post(text))[2] == refusing.ENDED["expired"]


def test_a_replaced_key_works_until_its_grace_is_over(serving, key, cast):
    fresh = keys.rotate(APIKey.objects.get(), cast.owner, timedelta(milliseconds=500))[1]
    assert [serving.post(text).status_code for text in (key, fresh)] == [200, 200]
    time.sleep(0.55)
    assert told(serving.post(key))[2] == refusing.ENDED["revoked"]
    assert serving.post(fresh).status_code == 200


def test_a_suspended_organisation_is_refused_and_told(serving, key, cast):
    assert serving.post(key).status_code == 200
    Tenant.objects.filter(pk=cast.acme.pk).update(status="suspended")
    epochs.raise_(cast.acme)
    assert told(serving.post(key)) == (401, "invalid_api_key", refusing.ENDED["suspended"])
    Tenant.objects.filter(pk=cast.acme.pk).update(status="active")
    epochs.raise_(cast.acme)
    assert serving.post(key).status_code == 200


def test_an_unknown_key_is_looked_up_once_in_five_seconds_and_a_new_one_works_at_once(serving, key, cast, loads):
    text = keytext.write(*keytext.generate())
    for _ in range(3):
        assert serving.post(text).status_code == 401
    assert loads == [text.split("_")[2]]
    assert serving.post(key).status_code == 200
    later = keys.create(cast.acme, "later", cast.owner)[1]
    assert serving.post(later).status_code == 200


def test_an_address_that_tries_unknown_keys_is_slowed_and_known_keys_are_not(serving, key, monkeypatch):
    monkeypatch.setattr(cache.Strangers, "BURST", 3)
    monkeypatch.setattr(cache.Strangers, "INTERVAL", 100.0)  # none comes back while the test runs, however slowly
    answers = [serving.post(keytext.write(*keytext.generate())) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert 90 < int(answers[-1].headers["retry-after"]) <= 100
    assert serving.post(answers[0].request.headers["authorization"][7:]).status_code == 401  # known to be unknown
    assert serving.post(key).status_code == 429  # not known yet
    full = serving.gateway._snapshots._strangers._full
    full.update({network: back - 100 for network, back in full.items()})  # an interval later
    assert serving.post(key).status_code == 200
    assert serving.post(keytext.write(*keytext.generate())).status_code == 401
    assert serving.post(keytext.write(*keytext.generate())).status_code == 429
    assert serving.post(key).status_code == 200


def test_strangers_take_bounded_memory_and_an_ipv6_network_is_one(monkeypatch):
    monkeypatch.setattr(cache.Strangers, "CAPACITY", 50)
    strangers = cache.Strangers()
    for number in range(500):
        strangers.count(f"10.0.{number // 250}.{number % 250}")
    assert len(strangers._full) == 50
    for number in range(cache.Strangers.BURST):
        assert not strangers.wait("2001:db8::1")
        strangers.count(f"2001:db8::{number:x}")
    assert 0 < strangers.wait("2001:db8::ffff") <= 1
    assert not strangers.wait("2001:db8:0:1::1")
    assert cache.network("::ffff:10.0.0.1") == "10.0.0.1"
    assert cache.network("") == ""


def test_when_the_database_does_not_answer_nobody_is_let_in(serving, key):
    def broken(key_id):
        raise ValueError(key_id)

    serving.gateway._snapshots._load = broken
    assert told(serving.post(key))[:2] == (503, "settings_unavailable")


def test_a_key_for_some_models_gets_no_other(serving, cast):
    record, text = keys.create(cast.acme, "narrow", cast.owner, allowed_models=["destek"])
    response = serving.post(text)
    assert told(response)[:2] == (403, "model_not_allowed")
    assert response.json()["error"]["type"] == "permission_error"
    assert response.headers["x-should-retry"] == "false"
    decision = decisions.read(refusals.secret(), response.headers["x-paramstack-decision"])
    assert (decision.code, decision.model, decision.key) == ("model_not_allowed", "demo-base", record.pk)
    assert abs(decision.at_us - time.time() * 1e6) < 5e6
    headers = {"authorization": f"Bearer {text}"}
    assert httpx2.get(f"{serving.url}/models", headers=headers).json()["data"] == []
    assert httpx2.get(f"{serving.url}/models/demo-base", headers=headers).status_code == 404
    keys.change(record, cast.owner, allowed_models=["demo-base"])
    assert serving.post(text).status_code == 200


@pytest.mark.parametrize("ending", ["revoke", "suspend", "narrow", "expire"])
def test_a_stream_ends_at_the_renewal_after_its_key_was_lost(quick, serving, cast, ending):
    serving.engine.tokens, serving.engine.pause = ["a"] * 500, 0.02
    record, text = keys.create(cast.acme, "stream", cast.owner)
    if ending == "expire":
        keys.change(record, cast.owner, expires_at=timezone.now() + timedelta(milliseconds=500))
    events = serving.stream(text)
    first = next(events)
    if ending == "revoke":
        keys.revoke(record, cast.owner)
    elif ending == "suspend":
        Tenant.objects.filter(pk=cast.acme.pk).update(status="suspended")
        epochs.raise_(cast.acme)
    elif ending == "narrow":
        keys.change(record, cast.owner, allowed_models=["other"])
    *seen, last = events
    reason = {"revoke": "key_revoked", "suspend": "key_suspended", "narrow": "model_not_allowed"}.get(
        ending, "key_expired"
    )
    assert last["error"]["code"] == reason
    assert last["error"]["request_id"] == first["id"]
    (row,) = serving.rows()
    assert (row.status, row.reason) == ("aborted", reason)
    assert 1 + len(seen) <= row.output_tokens < 200
    assert row.cost_nano == row.input_tokens + 4 * row.output_tokens > 0
    assert row.answer_digest == hashlib.sha256(b"a" * row.output_tokens).hexdigest()


def test_a_whole_answer_is_not_waited_for_after_its_key_was_lost(quick, serving, cast):
    serving.engine.pause = 30.0
    record, text = keys.create(cast.acme, "plain", cast.owner)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(serving.post(text)))
    asking.start()
    while not serving.engine.asked:
        time.sleep(0.01)
    keys.revoke(record, cast.owner)
    asking.join(10)
    assert told(answers[0])[:2] == (401, "key_revoked")
    (row,) = serving.rows()
    assert (row.status, row.reason, row.output_tokens) == ("aborted", "key_revoked", 0)


def test_a_stream_goes_on_through_a_change_that_leaves_its_key_alone(quick, serving, key, cast):
    serving.engine.tokens, serving.engine.pause = ["a"] * 30, 0.02
    events = serving.stream(key)
    next(events)
    epochs.raise_(cast.acme)
    assert len(list(events)) == 29
    assert [row.status for row in serving.rows()] == ["settled"]


def test_a_missing_max_is_the_keys_and_goes_to_the_engine(serving, key, cast):
    record, short = keys.create(cast.acme, "short", cast.owner, default_max_tokens=77)
    for text, body in ((key, {}), (short, {}), (short, {"max_completion_tokens": 5}), (short, {"max_tokens": 6})):
        assert serving.post(text, body).status_code == 200
    assert [asked["max_tokens"] for asked in serving.engine.asked] == [1024, 77, 5, 6]
    assert all("max_completion_tokens" not in asked for asked in serving.engine.asked)


def test_the_context_of_the_base_model_bounds_the_answer(serving, key, cast):
    BaseModel.objects.update(context_tokens=512)
    assert serving.post(key).status_code == 200
    response = serving.post(key, {"max_tokens": 513})
    assert told(response)[:2] == (400, "invalid_request")
    assert "512" in told(response)[2]
    (asked,) = serving.engine.asked
    assert 64 <= asked["max_tokens"] < 512 - 64


@pytest.mark.parametrize(
    ("context", "prompt", "granted"),
    [(0, 9999, 1024), (4096, 100, 1024), (512, 448, 64), (512, 449, 128), (32, 90, 16)],
)
def test_how_much_an_answer_may_have_when_nobody_says(context, prompt, granted):
    assert Target("m", "", 1, 1, 1, context_tokens=context).longest_answer(1024, prompt) == granted


def test_a_local_base_model_says_how_long_its_context_is(db, tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    assert registry.enter_base("local", str(tmp_path)).context_tokens == 2048
    assert registry.enter_base("hub", "org/name").context_tokens == 0
    (tmp_path / "config.json").write_text('["?"]')
    assert registry.enter_base("odd", str(tmp_path)).context_tokens == 0
    assert registry.enter_base("told", "org/name", context_tokens=99).context_tokens == 99
    assert registry.enter_base("told", "org/name").context_tokens == 99


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_one_call(serving, key, stream):
    response = serving.post(key, {"n": 2, "stream": stream, "max_tokens": 10})
    assert response.status_code == 200
    (row,) = serving.rows()
    assert (row.status, row.output_tokens, row.cost_nano) == ("settled", 8, 7 + 4 * 8)
    each = hashlib.sha256(ANSWER.encode()).hexdigest()
    assert row.answer_digest == hashlib.sha256((each + each).encode()).hexdigest()
    assert serving.engine.asked[0]["n"] == 2


def test_who_leaves_a_stream_of_several_answers_pays_for_all_of_them(serving, key, engine):
    """Under way an engine reports the tokens of the one answer that an event is a part of."""
    engine.counts, engine.pause, engine.tokens = True, 0.05, ["a"] * 200
    for number, _ in enumerate(serving.stream(key, {"n": 3, "max_tokens": 300})):
        if number == 30:
            break
    while not (rows := serving.rows()):
        time.sleep(0.05)
    (row,) = rows
    assert (row.status, row.reason, row.input_tokens) == ("aborted", "client_disconnected", 7)
    assert 30 <= row.output_tokens <= engine.written < 600
    assert row.output_tokens >= engine.written - 3  # one event each may have been on its way


def test_prompts_are_counted_once_each_whatever_the_answers():
    meter = Meter(4)
    for index, (read, made) in enumerate([(7, 1), (7, 5), (9, 2), (9, 4)]):
        meter.report_part({"prompt_tokens": read, "completion_tokens": made}, index, 2)
    assert meter.tokens(0) == (16, 12, 0)
    meter.report({"prompt_tokens": 16, "completion_tokens": 20})
    assert meter.tokens(0) == (16, 20, 0)


def test_an_answer_without_a_report_never_counts_more_than_was_held(serving, key, base, cast):
    serving.engine.usage = {"total_tokens": 50}
    assert serving.post(key, {"max_tokens": 2}).status_code == 200
    (row,) = serving.rows()
    assert (row.status, row.output_tokens) == ("settled", 2)
    assert row.input_tokens > 0


def test_cached_tokens_have_their_own_price_and_the_row_names_its_price(serving, key, base, cast):
    from tenants.models import Price

    Price.objects.update(cached_nano_per_mtok=100_000)
    details = {"cached_tokens": 60}
    serving.engine.usage = {"prompt_tokens": 100, "completion_tokens": 4, "prompt_tokens_details": details}
    serving.post(key, {"user": "ayşe"})
    (row,) = serving.rows()
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (100, 60, 4)
    assert row.cost_nano == 40 + 6 + 16
    assert (row.price, row.end_user) == (Price.objects.get(), "ayşe")
    assert abs((row.occurred_at - timezone.now()).total_seconds()) < 5
