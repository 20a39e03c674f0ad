"""The fallback of a model name: it takes calls that nobody answers, and the row says so."""

import json

import pytest

from inference import aliases, registry, rollouts
from inference.gateway.snapshot import Route, Target
from inference.models import BaseModel, Replica
from inference.tests.signed import answering
from inference.tests.test_telemetry import change, samples
from tenants import keys, metering
from tenants.models import AuditEntry, Budget, Price
from tenants.tests.api_client import ACME, client, is_problem

pytestmark = pytest.mark.django_db(transaction=True)
FALLBACKS = "paramstack_gateway_fallbacks_total"


@pytest.fixture
def adapter(publish, cast):
    """Acme's loaded adapter; its tokens cost ten times the base model's."""
    adapter = answering(publish())
    line = Price.objects.get(model="demo-base")
    Price.objects.create(
        model="acme/destek-v1",
        input_nano_per_mtok=10_000_000,
        output_nano_per_mtok=40_000_000,
        valid_from=line.valid_from,
    )
    return adapter


@pytest.fixture
def bot(cast, base, adapter):
    """`bot` answers with the base model, and with the adapter where that does not answer."""
    return aliases.set_fallback(aliases.create(cast.acme, "bot", base, cast.engineer), adapter, cast.engineer)


@pytest.mark.parametrize("status", [404, 500, 503, 0])
@pytest.mark.parametrize("stream", [False, True])
def test_where_nobody_answers_the_fallback_does_and_the_row_says_so(serving, key, bot, adapter, engine, status, stream):
    engine.fails = {"demo-base": status}
    before = samples()
    answer = serving.post(key, {"model": "bot", "stream": stream})
    assert answer.status_code == 200
    assert answer.headers["x-paramstack-arm"] == "fallback"
    assert answer.headers["x-paramstack-adapter"] == adapter.digest
    assert [asked["model"] for asked in engine.asked][-1] == adapter.engine_name
    (row,) = serving.rows()
    assert (row.status, row.model, row.arm, row.weight_bp) == ("settled", "bot", "fallback", 10_000)
    assert (row.served, row.adapter_digest) == (adapter.engine_name, adapter.digest)
    assert (row.input_tokens, row.output_tokens) == (7, 4)
    assert row.cost_nano == 7 * 10 + 4 * 40
    assert row.price.model == "acme/destek-v1"
    named = {"gen_ai_request_model": "demo-base", "paramstack_fallback": adapter.engine_name}
    assert change(before, samples(), FALLBACKS, **named) == 1


def test_a_call_that_is_answered_knows_no_fallback(serving, key, bot, engine):
    assert serving.post(key, {"model": "bot"}).headers["x-paramstack-arm"] == "champion"
    assert [asked["model"] for asked in engine.asked] == ["demo-base"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_engine_refuses_is_refused(serving, key, bot, engine, status):
    engine.fails = {"demo-base": status}
    assert serving.post(key, {"model": "bot"}).json()["error"]["code"] == "engine_refused"
    assert len(engine.asked) == 1
    (row,) = serving.rows()
    assert (row.arm, row.status, row.cost_nano) == ("champion", "aborted", 0)


def test_what_has_begun_is_not_begun_again(serving, key, bot, engine):
    engine.break_after = 2
    events = list(serving.stream(key, {"model": "bot"}))
    assert events[-1]["error"]["code"] == "engine_unavailable"
    assert len(engine.asked) == 1
    (row,) = serving.rows()
    assert (row.arm, row.status) == ("champion", "aborted")


@pytest.mark.parametrize("status", [400, 500])
def test_where_the_fallback_fails_too_the_caller_hears_of_what_it_asked_for(serving, key, bot, adapter, engine, status):
    engine.fails = {"demo-base": 404, adapter.engine_name: status}
    answer = serving.post(key, {"model": "bot"})
    assert answer.status_code == 503
    assert "demo-base" in answer.json()["error"]["message"]
    assert [asked["model"] for asked in engine.asked] == ["demo-base", adapter.engine_name]
    (row,) = serving.rows()
    assert (row.status, row.cost_nano, row.reason) == ("aborted", 0, "engine_unavailable")


def test_a_call_is_held_at_the_dearer_of_the_two(serving, key, bot, cast):
    """The budget pays for the base model and not for the adapter: the call is refused before anybody is asked."""
    body = {"model": "bot", "max_tokens": 10}
    size = len(json.dumps({"model": "bot", "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 10}))
    cheap, dear = (size + 64) + 10 * 4, (size + 64) * 10 + 10 * 40
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=dear - 1)
    assert serving.post(key, body).json()["error"]["code"] == "insufficient_quota"
    aliases.set_fallback(bot, None, cast.engineer)
    assert cheap < dear - 1
    assert serving.post(key, body).status_code == 200


def test_the_hold_is_gone_and_only_what_answered_is_spent(serving, key, bot, engine, redis_url):
    import redis

    engine.fails = {"demo-base": 404}
    assert serving.post(key, {"model": "bot"}).status_code == 200
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        (month,) = client.smembers(metering.MONTHS)
        told = client.hgetall(month)
    assert (int(told["held"]), int(told["spent"])) == (0, 230)


def test_a_key_for_the_name_alone_gets_the_fallback_too(serving, bot, cast, engine):
    engine.fails = {"demo-base": 404}
    text = keys.create(cast.acme, "narrow", cast.owner, allowed_models=["bot"])[1]
    assert serving.post(text, {"model": "bot"}).headers["x-paramstack-arm"] == "fallback"
    assert serving.post(text, {"model": "destek-v1"}).status_code == 403


def test_a_fallback_that_is_too_small_for_the_answer_is_not_asked(serving, key, bot, cast, engine):
    small = BaseModel.objects.create(name="small", source="/small", context_tokens=16)
    Replica.objects.create(name="second", url=Replica.objects.get().url, base=small, state=Replica.State.WELL)
    Price.objects.create(
        model="small",
        input_nano_per_mtok=1,
        output_nano_per_mtok=1,
        valid_from=Price.objects.get(model="demo-base").valid_from,
    )
    aliases.set_fallback(bot, small, cast.engineer)
    engine.fails = {"demo-base": 404}
    assert serving.post(key, {"model": "bot", "max_tokens": 17}).status_code == 503
    assert serving.post(key, {"model": "bot", "max_tokens": 16}).headers["x-paramstack-arm"] == "fallback"
    assert serving.post(key, {"model": "bot"}).status_code == 200
    assert engine.asked[-1]["max_tokens"] <= 16  # what its own context leaves


def test_embeddings_of_another_model_are_no_answer(serving, key, bot, engine):
    serving.stop_engine()
    body = json.dumps({"model": "bot", "input": "a"}).encode()
    assert serving.post(key, body, "/embeddings").status_code == 503
    (row,) = serving.rows()
    assert row.arm == "champion"


def test_without_a_price_there_is_no_fallback_and_the_name_still_answers(serving, key, bot, cast, engine):
    aliases.set_fallback(bot, BaseModel.objects.create(name="unpriced", source="/x"), cast.engineer)
    assert serving.post(key, {"model": "bot"}).status_code == 200
    engine.fails = {"demo-base": 404}
    assert serving.post(key, {"model": "bot"}).status_code == 503


def test_both_arms_have_the_fallback():
    champion, challenger, other = (Target(name, "", 1, 1, 1) for name in "abc")
    route = Route("bot", champion, challenger, 5_000, "salt", is_alias=True, fallback=other)
    choices = [route.choose(str(caller)) for caller in range(50)]
    assert {choice.arm for choice in choices if choice} == {"champion", "challenger"}
    assert all(choice and choice.fallback is other for choice in choices)


class TestSetting:
    def test_what_cannot_serve_is_refused(self, bot, publish, cast, base):
        with pytest.raises(aliases.NotServable, match="not loaded"):
            aliases.set_fallback(bot, publish("eski"), cast.engineer)
        with pytest.raises(aliases.NotServable, match="tenant"):
            aliases.set_fallback(bot, publish("x", cast.globex), cast.engineer)
        for name in ("yok", "yok-v1", "destek-v9", "destek-vx"):
            with pytest.raises(aliases.UnknownTarget):
                aliases.target(cast.acme, name)
        assert aliases.target(cast.acme, "demo-base") == base
        with pytest.raises(aliases.UnknownTarget):
            aliases.target(cast.globex, "destek-v1")

    def test_an_adapter_that_is_a_fallback_stays_loaded(self, bot, adapter, cast):
        with pytest.raises(registry.AdapterInUse, match="bot"):
            registry.unload(adapter)

    def test_it_is_written_down_and_holds_at_once(self, bot, adapter, base, cast):
        before = type(cast.acme).objects.get(pk=cast.acme.pk).epoch
        aliases.set_fallback(bot, base, cast.owner)
        assert type(cast.acme).objects.get(pk=cast.acme.pk).epoch == before + 1
        entry = AuditEntry.objects.filter(action="alias.fallback").order_by("-pk")[0]
        assert (entry.actor, entry.subject) == (cast.owner, "alias bot")
        assert (entry.before, entry.after) == ({"fallback": "destek-v1"}, {"fallback": "demo-base"})

    def test_a_rollout_leaves_it(self, bot, adapter, cast):
        rollouts.promote(rollouts.start(bot, adapter, cast.engineer), cast.engineer)
        bot.refresh_from_db()
        assert (bot.champion, bot.fallback) == (adapter, adapter)

    def test_over_rest(self, bot, adapter, cast):
        one = ACME + "aliases/bot/"
        assert client(cast.auditor).get(one).json()["fallback"] == "destek-v1"
        assert client(cast.engineer).patch(one, {"fallback": "demo-base"}).json()["fallback"] == "demo-base"
        assert client(cast.engineer).patch(one, {"fallback": None}).json()["fallback"] is None
        is_problem(client(cast.engineer).patch(one, {"fallback": "yok"}), 422)
        is_problem(client(cast.engineer).patch(one, {}), 400)
        is_problem(client(cast.auditor).patch(one, {"fallback": None}), 403)
        is_problem(client(cast.outsider).get(one), 404)
        is_problem(client(cast.engineer).get(ACME + "aliases/yok/"), 404)

    def test_on_the_page(self, bot, adapter, cast, client):
        client.force_login(cast.engineer)
        page = "/t/acme/rollouts/"
        assert "destek-v1" in client.get(page).content.decode()
        client.post(page + "fallback/", {"alias": bot.pk, "target": "demo-base"})
        bot.refresh_from_db()
        assert str(bot.fallback) == "demo-base"
        client.post(page + "fallback/", {"alias": bot.pk, "target": ""})
        bot.refresh_from_db()
        assert bot.fallback is None
        client.post(page + "fallback/", {"alias": bot.pk, "target": "yok"})
        bot.refresh_from_db()
        assert bot.fallback is None
