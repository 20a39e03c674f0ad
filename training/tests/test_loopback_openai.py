"""The OpenAI form of the loopback server, by the real `openai` SDK: the same world, limits, faults and bill."""

from __future__ import annotations

import json

import openai
import pytest

from training.judges import claude as judge
from training.loopback import truth
from training.loopback.server import Loopback, served

MODEL = "claude-haiku-5-5"


@pytest.fixture
def app():
    return Loopback()


@pytest.fixture
def client(app):
    with served(app) as address, openai.OpenAI(api_key="sk-any", base_url=f"{address}/v1", max_retries=0) as found:
        yield found


def ask(client, content="Merhaba", **more):
    turns = [{"role": "system", "content": "Türkçe yanıtla."}, {"role": "user", "content": content}]
    return client.chat.completions.create(model=MODEL, messages=turns, temperature=0.7, **more)


def test_a_completion_carries_the_planted_truth_and_its_price(client, app):
    done = ask(client)
    assert truth.MARK.search(done.choices[0].message.content)
    assert done.choices[0].finish_reason == "stop"
    assert app.bill.total_nano == done.usage.prompt_tokens * 100 + done.usage.completion_tokens * 500


def test_a_judgement_is_known_by_its_question_or_its_schema(client, app):
    shown = json.dumps({"prompt": "p", "first": "a", "second": "b"})
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": judge.SCHEMA}}
    for more in ({}, {"response_format": form}):
        assert judge.read(ask(client, shown, **more).choices[0].message.content)["winner"] in ("first", "second")
    assert app.bill.summary()["kinds"] == {"pairwise": 2}


def test_what_is_cut_says_so(client):
    done = ask(client, max_tokens=5)
    assert (done.choices[0].finish_reason, done.usage.completion_tokens) == ("length", 5)


def test_models_are_listed(client):
    assert MODEL in [model.id for model in client.models.list()]


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"refused_keys": ["sk-any"]}, openai.AuthenticationError, "invalid_api_key"),
        ({"rate_limited": 1.0}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"credit_nano": 0}, openai.RateLimitError, "insufficient_quota"),
        ({"overloaded": 1.0}, openai.InternalServerError, "overloaded"),
        ({"server_error": 1.0}, openai.InternalServerError, None),
    ],
)
def test_faults_look_as_they_do_there(client, app, options, kind, code):
    app.change(**options)
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.code == code
    assert app.bill.total_nano == 0


def test_limits_are_shared_and_their_headers_are_openais(client, app):
    app.change(calls_per_second=1.0, burst=1)
    turns = [{"role": "user", "content": "Merhaba"}]
    told = client.chat.completions.with_raw_response.create(model=MODEL, messages=turns).headers
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("60", "0")
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.response.headers["retry-after"] == "1"


def test_more_than_one_choice_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="one choice"):
        ask(client, n=2)
