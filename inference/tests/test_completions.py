"""Completions and embeddings: the same journey as a chat."""

import json

import pytest

from inference import extras, protocol
from inference.protocol import completions, embeddings, fields
from tenants.problems import Refused

pytestmark = pytest.mark.django_db(transaction=True)


def refused(parse, **body):
    with pytest.raises(protocol.Refusal) as caught:
        parse(json.dumps({"model": "m"} | body).encode())
    return caught.value.status, caught.value.param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "n": 99}, "n"),
    ],
)
def test_a_completion_that_is_not_understood_is_refused_by_name(body, param):
    assert refused(completions.parse, **body) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": [[1]]}, "input"), ({"input": "x", "stream": True}, "stream"), ({"input": 5}, "input")],
)
def test_an_embedding_that_is_not_understood_is_refused_by_name(body, param):
    assert refused(embeddings.parse, **body) == (400, param)


@pytest.mark.parametrize("name", sorted(fields.NEVER))
@pytest.mark.parametrize("parse", protocol.PARSERS.values())
def test_what_reaches_past_the_model_is_never_the_callers(parse, name):
    assert refused(parse, prompt="x", input="x", messages=[], **{name: "x"})[0] == 400


def test_every_prompt_has_its_answers_and_all_of_them_are_held():
    request = completions.parse(b'{"model":"m","prompt":["a","b"],"n":3}')
    assert (request.answers, request.prompts) == (6, 2)
    assert request.input_bound >= request.size + 2 * 64


def test_a_completion_is_answered_and_booked(serving, key):
    answer = serving.post(key, {"prompt": "Merhaba", "messages": None, "max_tokens": 5}, "/completions")
    assert answer.json()["error"]["param"] == "messages"
    body = {"model": "demo-base", "prompt": "Merhaba", "max_tokens": 5}
    answer = serving.post(key, json.dumps(body).encode(), "/completions")
    assert answer.json()["choices"][0]["text"] == "Merhaba dünya"
    (row,) = serving.rows()
    assert (row.status, row.input_tokens, row.output_tokens) == ("settled", 7, 4)


def test_a_streamed_completion_is_answered_and_booked(serving, key):
    body = {"model": "demo-base", "prompt": ["Merhaba"], "max_tokens": 5, "stream": True}
    answer = serving.post(key, json.dumps(body).encode(), "/completions")
    frames = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    assert "".join(frame["choices"][0]["text"] for frame in frames) == "Merhaba dünya"
    (row,) = serving.rows()
    assert (row.status, row.output_tokens) == ("settled", 4)


def test_embeddings_cost_their_input(serving, key):
    body = json.dumps({"model": "demo-base", "input": ["bir", "iki"]}).encode()
    answer = serving.post(key, body, "/embeddings")
    assert [one["embedding"] for one in answer.json()["data"]] == [[0.5, 0.25], [0.5, 0.25]]
    assert answer.json()["model"] == "demo-base"
    (row,) = serving.rows()
    assert (row.status, row.input_tokens, row.output_tokens, row.cost_nano) == ("settled", 7, 0, 7)


def test_a_rule_sees_the_prompt_of_a_completion(serving, key):
    body = {"model": "demo-base", "prompt": "Yaz: ali@example.com", "max_tokens": 5}
    serving.post(key, json.dumps(body).encode(), "/completions")
    assert "ali@example.com" not in serving.engine.asked[0]["prompt"]


def test_an_engines_own_field_is_open_to_whom_an_operator_opened_it(serving, key, cast):
    closed = serving.post(key, {"ignore_eos": True})
    assert (closed.status_code, closed.json()["error"]["param"]) == (400, "ignore_eos")
    extras.open_(cast.acme, ["ignore_eos"], cast.owner)
    assert serving.post(key, {"ignore_eos": True}).status_code == 200
    assert serving.engine.asked[-1]["ignore_eos"] is True
    extras.open_(cast.acme, [], cast.owner)
    assert serving.post(key, {"ignore_eos": True}).status_code == 400


def test_only_what_there_is_can_be_opened(cast):
    with pytest.raises(Refused):
        extras.open_(cast.acme, ["chat_template"], cast.owner)


def test_the_engine_parts_the_caches_of_tenants(serving, key, cast):
    serving.post(key)
    assert serving.engine.asked[0]["cache_salt"] == str(cast.acme.pk)
