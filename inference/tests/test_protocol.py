"""What a chat request may say, and how streams are cut."""

import hashlib
import json

import pytest

from inference import protocol

MESSAGES = [{"role": "user", "content": "x"}]
DEEP = "[" * 300 + "]" * 300


def deep(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def tool_call(arguments):
    return {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": arguments}}


def parse(**changes):
    return protocol.chat.parse(json.dumps({"model": "m", "messages": MESSAGES} | changes).encode())


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "root", "content": "x"}]}, "messages[0]"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": {}, "content": "x"}]}, "messages[0]"),
        ({"messages": [*MESSAGES, {"role": "user", "content": "x", "audio": {}}]}, "messages[1].audio"),
        ({"messages": [{"role": "user", "content": "x", "name": ["y"]}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "my words"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": "z"}]}]}, "messages[0].content"),
        ({"tools": deep(300)}, "tools"),
        ({"metadata": deep(300)}, "metadata"),
        ({"messages": deep(300)}, "messages"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [tool_call(DEEP)]}]},
            "messages[0].tool_calls",
        ),
        ({"messages": [*MESSAGES, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"user": 5}, "user"),
        ({"max_tokens": 1_000_001}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"best_of": 5}, "best_of"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(changes, param):
    with pytest.raises(protocol.Refusal) as caught:
        parse(**changes)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"null", b'{"a": 1', b"{" * 5000])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(protocol.Refusal) as caught:
        protocol.chat.parse(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_an_answer_may_be_sent_back_with_the_nulls_of_a_client_library():
    call = tool_call("{broken")
    told = {"role": "assistant", "content": None, "audio": None, "refusal": None, "tool_calls": [call]}
    request = parse(messages=[*MESSAGES, told, {"role": "tool", "content": "5", "tool_call_id": "call_1"}])
    assert request.messages[1] == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_what_was_admitted_can_be_written():
    request = parse(tools=deep(200))
    assert json.loads(request.payload("m", request.messages, 1, request.prompted))["tools"] == deep(200)


def test_the_digest_is_of_the_bytes_and_either_name_bounds_the_answer():
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":null,"max_completion_tokens":9}'
    request = protocol.chat.parse(body)
    assert request.digest == hashlib.sha256(body).hexdigest()
    assert request.max_tokens == 9
    assert request.input_bound > len(body)
    assert parse(max_tokens=5).max_tokens == parse(max_tokens=5, max_completion_tokens=5).max_tokens == 5


def test_several_answers_are_asked_for_only_where_the_caller_does():
    assert json.loads(parse(n=3).payload("m", MESSAGES, 7))["n"] == 3
    assert "n" not in json.loads(parse(n=1).payload("m", MESSAGES, 7))


@pytest.mark.parametrize(
    ("user", "kept"),
    [
        ("ayşe", "ayşe"),
        ("a" * 64, "a" * 64),
        ("a" * 65, hashlib.sha256(b"a" * 65).hexdigest()),
        ("a\0b", hashlib.sha256(b"a\0b").hexdigest()),
        ("", ""),
    ],
)
def test_a_long_or_odd_name_of_an_end_user_is_kept_as_its_hash(user, kept):
    assert parse(user=user).end_user == kept


@pytest.mark.parametrize(
    ("reported", "believed"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 4}, (7, 4, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}, (7, 4, 5)),
        ({"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 9}}, (7, 4, 7)),
        ({"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None}, (7, 0, 0)),
        ({"prompt_tokens": -7, "completion_tokens": 4}, None),
        ({}, None),
        ({"total_tokens": 50}, None),
        ({"prompt_tokens": None, "completion_tokens": 7}, None),
        ({"prompt_tokens": "7", "completion_tokens": 4}, None),
        ({"prompt_tokens": 7, "completion_tokens": 10**30}, None),
        ([], None),
    ],
)
def test_a_report_of_usage_is_believed_only_if_it_can_be_true(reported, believed):
    assert protocol.usage_of(reported) == believed


def test_the_engine_gets_what_belongs_to_it_and_always_reports_usage():
    request = parse(stream=True, temperature=0.5, user="ayse", metadata={"a": 1}, stop=None)
    sent = json.loads(request.payload("acme.x-v1", MESSAGES, 7))
    assert sent.keys() == {"model", "messages", "max_tokens", "stream", "stream_options", "temperature"}
    assert sent["stream_options"]["include_usage"] is True
    assert not request.include_usage
    assert parse(stream=True, stream_options={"include_usage": True}).include_usage


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_survive_any_cut(size):
    said = ': hello\r\n\r\ndata: {"a": "ğ"}\r\n\r\ndata:{"b": 2}\n\nevent: x\ndata: [DONE]\n\ndata: {"c": 3}\n\n'
    stream = said.encode()

    reader = protocol.EventReader()
    found = [data for start in range(0, len(stream), size) for data in reader.feed(stream[start : start + size])]
    assert [json.loads(data) for data in found] == [{"a": "ğ"}, {"b": 2}]
    assert reader.done
