"""Personal data is found by checksum and not by looks; a policy is understood to the last key or refused."""

import re
import time

import pytest

from inference.guardrails import engine, pii, policy

DEFAULT = policy.parse(policy.DEFAULT.read_text())


def redact(text):
    outcome = engine.check_input(DEFAULT, [{"role": "user", "content": text}])
    assert outcome.allowed
    return outcome.messages[0]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kimlik no: 10000000146.", "Kimlik no: [TCKN]."),
        ("100 000 001 46", "[TCKN]"),
        ("TR330006100519786457841326", "[IBAN]"),
        ("tr33 0006 1005 1978 6457 8413 26'ya gönder", "[IBAN]'ya gönder"),
        ("+90 532 123 45 67", "[PHONE]"),
        ("0532 1234567 ve 5321234567", "[PHONE] ve [PHONE]"),
        ("(0212) 555 44 33", "([PHONE]"),
        ("00905321234567", "[PHONE]"),
        ("ayşe.öz+iş@örnek.com.tr, selam", "[EMAIL], selam"),
        ("4242-4242-4242-4242", "[CARD]"),
        ("5528790000000008", "[CARD]"),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", "[CARD]"),
    ],
)
def test_personal_data_is_replaced(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "10000000145",  # check digit
        "00000000000",
        "210000000146",  # twelve digits
        "TR340006100519786457841326",
        "4242 4242 4242 4243",
        "Sipariş 20261125001, tutar 1.234.567,89",
        "a@b",
        "2026-11-25 12:30:45",
        "0000000000000000",
    ],
)
def test_other_numbers_stay(text):
    assert redact(text) == text


def test_a_made_up_identity_number_has_the_right_check_digits():
    for first in range(100_000_000, 100_002_000, 37):
        d = [int(c) for c in str(first)]
        tenth = (7 * sum(d[0::2]) - sum(d[1::2])) % 10
        digits = f"{first}{tenth}{(sum(d) + tenth) % 10}"
        assert pii.tckn(digits)
        assert redact(digits) == "[TCKN]"


def test_every_text_of_a_request_is_looked_at_and_findings_hold_no_text():
    messages: list[dict] = [
        {"role": "system", "content": "Ara: 0532 123 45 67"},
        {"role": "user", "content": [{"type": "text", "text": "10000000146"}, {"type": "text", "text": "a@b.co"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    outcome = engine.check_input(DEFAULT, messages)
    assert "10000000146" in str(messages)
    assert [part["text"] for part in outcome.messages[1]["content"]] == ["[TCKN]", "[EMAIL]"]
    assert {(f.kind, f.count) for f in outcome.findings} == {("phone", 1), ("tckn", 1), ("email", 1)}
    assert not re.search(r"\d{4}", str(outcome.findings))


def test_nothing_that_the_model_reads_is_passed_by():
    arguments = '{"note": "Hesap:\\nTR330006100519786457841326", "10000000146": 10000000146}'
    call: dict = {"id": "call_1", "type": "function", "function": {"name": "a@b.co", "arguments": arguments}}
    messages: list[dict] = [
        {"role": "assistant", "content": None, "reasoning_content": "0532 123 45 67", "tool_calls": [call]},
        {"role": "tool", "name": "a@b.co", "content": "x", "tool_call_id": "call_1"},
    ]
    schema = {"type": "object", "properties": {"a@b.co": {"enum": ["10000000146", 10000000146, True, None, 1.5]}}}
    prompted: dict = {
        "tools": [{"type": "function", "function": {"description": "4242424242424242", "parameters": schema}}]
    }
    outcome = engine.check_input(DEFAULT, messages, prompted)
    assert outcome.messages == [
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "[PHONE]",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "[EMAIL]", "arguments": '{"note":"Hesap:\\n[IBAN]","[TCKN]":"[TCKN]"}'},
                }
            ],
        },
        {"role": "tool", "name": "[EMAIL]", "content": "x", "tool_call_id": "call_1"},
    ]
    function = outcome.prompted["tools"][0]["function"]
    assert function["description"] == "[CARD]"
    assert function["parameters"]["properties"] == {"[EMAIL]": {"enum": ["[TCKN]", "[TCKN]", True, None, 1.5]}}
    assert call["function"]["arguments"] == arguments


@pytest.mark.parametrize("arguments", ["{" * 16_000, f"[{'[],' * 16_000}1]", '"' + "ş" * 16_000 + '"'])
def test_the_length_counts_what_stands_beside_the_content(arguments):
    call: dict = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": arguments}}
    assert not engine.check_input(DEFAULT, [{"role": "assistant", "content": None, "tool_calls": [call]}]).allowed
    assert not engine.check_input(DEFAULT, [{"role": "user", "content": "x", "name": "ş" * 16_001}]).allowed


@pytest.mark.parametrize("tools", [["ş" * 16_000], [{"ş" * 16_000: 1}], [{}] * 16_000, [None] * 4_000])
def test_the_length_counts_the_tools(tools):
    assert not engine.check_input(DEFAULT, [{"role": "user", "content": "x"}], {"tools": tools}).allowed


def test_what_is_nested_deeply_is_walked():
    value: list = ["10000000146"]
    for _ in range(240):
        value = [value]
    assert "[TCKN]" in str(engine.check_input(DEFAULT, [], {"tools": value}).prompted)


def test_a_long_prompt_is_blocked():
    outcome = engine.check_input(DEFAULT, [{"role": "user", "content": "ş" * 16_001}])
    assert (outcome.allowed, outcome.rule) == (False, "prompt-length")
    assert engine.check_input(DEFAULT, [{"role": "user", "content": "ş" * 16_000}]).allowed


def test_a_validator_that_fails_blocks():
    class Broken:
        def check(self, texts):
            raise RuntimeError

    broken = policy.Policy((policy.Rule("r", "redact", Broken()),), "")
    assert not engine.check_input(broken, [{"role": "user", "content": "x"}]).allowed


@pytest.mark.parametrize(
    "text", ["a" * 16_000, "a." * 8_000, "1 " * 8_000, "5" * 16_000, "a@" + "a." * 7_999, "+90 " * 4_000]
)
def test_no_text_takes_long(text):
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 0.5


RULE = "  - {id: a, validator: length, action: block, max_characters: 5}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "version: 1"),
        ("version: 2\nrules: []", 1, "version: 1"),
        ("version: 1\nrules: []\nextra: 1", 1, "exactly two keys"),
        ("version: 1\nrules: 5", 1, "rules is a list"),
        ("version: 1\nrules:\n" + RULE + RULE, 4, "twice"),
        ("version: 1\nrules:\n" + RULE + "  - {id: b, validator: magic, action: block}", 4, "magic"),
        ("version: 1\nrules:\n  - {id: b, validator: pii, action: shout}", 3, "shout"),
        ("version: 1\nrules:\n  - {id: b, validator: pii, action: redact, kinds: [passport]}", 3, "tckn"),
        ("version: 1\nrules:\n  - {id: b, validator: pii, action: redact, kind: [tckn]}", 3, "kinds"),
        ("version: 1\nrules:\n  - {id: b, validator: pii, action: redact, kinds: [[1]]}", 3, "kinds"),
        ("version: 1\nrules:\n  - {id: b, validator: length, action: redact, max_characters: 5}", 3, "only block"),
        ("version: 1\nrules:\n  - {id: b, validator: length, action: block, max_characters: no}", 3, "positive"),
        ("version: 1\nrules:\n  - {validator: pii, action: redact}", 3, "id"),
        ("version: 1\nrules:\n  - {id: b, validator: [x], action: redact}", 3, "validator"),
        ("version: 1\nrules:\n  - 5", 1, "mapping"),
        ("version: 1\nversion: 1\nrules: []", 2, "version"),
        ("version: 1\nrules: [", 2, ""),
        ("version: 1\nrules: !!python/object:os.system []", 2, ""),
        ("a: &a [*a]", 1, ""),
        ("version: 1\n? [1, 2]\n: x", 2, "unclear"),
        ("\x00", 1, "YAML"),
        ("version: 1\nrules: 2024-13-45", 1, "cannot be read"),
        ("version: 1\nrules: !!bool x", 1, "cannot be read"),
        ("version: 1\nrules: !!timestamp x", 1, "cannot be read"),
        ("version: 1\nrules: !!int ''", 1, "cannot be read"),
        ("[" * 5_000, 1, "cannot be read"),
    ],
)
def test_a_policy_that_is_not_understood_is_refused_with_its_line(text, line, words):
    with pytest.raises(policy.PolicyError) as caught:
        policy.parse(text)
    assert caught.value.line == line
    assert words in caught.value.reason
