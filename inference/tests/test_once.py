"""Idempotency-Key on calls: answered once, charged once."""

import json
import threading
import time

import httpx2
import pytest

from inference.gateway import once
from inference.tests.conftest import ANSWER, HELLO
from tenants import tenancy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


def post(serving, key, text="one", **changes):
    headers = {"authorization": f"Bearer {key}", "idempotency-key": text}
    return httpx2.post(f"{serving.url}/chat/completions", json=HELLO | changes, headers=headers, timeout=20)


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_a_second_try_is_told_which_call_it_was_and_costs_nothing(serving, key):
    first = post(serving, key)
    again = post(serving, key)
    assert first.status_code == 200
    assert code(again) == (409, "idempotency_key_answered")
    assert first.headers["x-request-id"] in again.json()["error"]["message"]
    assert again.headers["x-should-retry"] == "false"
    assert len(serving.rows()) == len(serving.engine.asked) == 1


def test_where_answers_are_kept_the_second_try_gets_the_first_ones(serving, key, cast):
    tenancy.keep_answers(cast.acme, True, cast.owner)
    first, again = post(serving, key), post(serving, key)
    assert again.content == first.content
    assert again.json()["choices"][0]["message"]["content"] == ANSWER
    assert (again.headers["idempotent-replayed"], again.headers["x-paramstack-first"]) == ("true", first.json()["id"])
    assert len(serving.rows()) == 1


def test_another_body_is_refused(serving, key):
    post(serving, key)
    assert code(post(serving, key, temperature=0.5)) == (422, "idempotency_key_reused")


def test_another_key_may_use_the_same_words(serving, key, cast):
    from tenants import keys

    other = keys.create(cast.acme, "other", cast.owner)[1]
    assert post(serving, key).status_code == post(serving, other).status_code == 200


def test_a_call_under_way_is_not_begun_twice(serving, key):
    serving.engine.pause = 3.0
    answers = []
    first = threading.Thread(target=lambda: answers.append(post(serving, key)))
    first.start()
    while not serving.engine.asked:
        time.sleep(0.01)
    assert code(post(serving, key)) == (409, "idempotency_key_in_use")
    first.join()
    assert answers[0].status_code == 200
    assert len(serving.engine.asked) == 1


def test_what_came_to_nothing_may_be_sent_again(serving, key):
    serving.engine.refuse = 500
    assert post(serving, key).status_code == 503
    serving.engine.refuse = None
    assert post(serving, key).status_code == 200


def test_a_call_whose_gateway_died_may_be_sent_again(serving, key, monkeypatch):
    async def vanish(self, event, answer):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(once.Once, "end", vanish)
        serving.engine.refuse = 500
        post(serving, key)
    serving.engine.refuse = None
    assert code(post(serving, key)) == (409, "idempotency_key_in_use")
    monkeypatch.setattr(once, "YOUNG_SECONDS", 0.0)
    assert post(serving, key).status_code == 200


def test_a_stream_is_charged_once_too(serving, key):
    answer = post(serving, key, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert code(post(serving, key, stream=True)) == (409, "idempotency_key_answered")


@pytest.mark.parametrize("text", ["", "a" * 256, "ğ"])
def test_a_key_that_is_none_is_refused(serving, key, text):
    head = f"Authorization: Bearer {key}\r\nIdempotency-Key: ".encode() + text.encode("utf-8") + b"\r\n"
    body = json.dumps(HELLO).encode()
    from inference.tests.test_server import HEAD, error, talk

    sent = HEAD + head + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert error(talk(serving, sent)) == (400, "invalid_request")
