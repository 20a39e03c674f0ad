"""Known answers: what engines with fewer bits may differ in, and what gives another adapter away."""

import json

import pytest

from inference.engines import known
from inference.engines.known import Case, Known, Malformed, WrongAnswer
from inference.tests.signed import CASES

KNOWN = Known("base", "a" * 64, CASES)
RIGHT = [(case.tokens, case.logprobs) for case in CASES]


def test_a_record_reads_as_it_was_written():
    assert known.parse(known.dump(KNOWN)) == KNOWN


def test_the_adapter_itself_passes_also_with_fewer_bits():
    known.check(KNOWN, RIGHT)
    known.check(KNOWN, [(tokens, [value - 0.04 for value in values]) for tokens, values in RIGHT])


def test_two_that_were_nearly_even_may_change_places_and_the_rest_is_not_compared():
    known.check(KNOWN, [RIGHT[0], ((11, 99), (-0.5, -0.4))])
    known.check(KNOWN, [RIGHT[0], ((11,), (-0.5,))])


@pytest.mark.parametrize(
    "answers",
    [
        [((7, 8, 10), (-0.1, -0.2, -0.3)), RIGHT[1]],  # another token where the record was sure
        [((7, 8), (-0.1, -0.2)), RIGHT[1]],  # it ends too soon
        [((), ()), RIGHT[1]],
        [(case.tokens, case.base_logprobs) for case in CASES],  # the same words as the base model says them
    ],
)
def test_something_else_does_not(answers):
    with pytest.raises(WrongAnswer):
        known.check(KNOWN, answers)


def test_where_nothing_can_be_compared_nothing_is_known():
    even = Case((1,), (2,), (-0.7,), (-0.7,), (0.01,))
    with pytest.raises(WrongAnswer, match="no token"):
        known.check(Known("base", "", (even,)), [((3,), (-0.7,))])


def test_an_adapter_that_changes_next_to_nothing_is_told_by_its_tokens_alone():
    near = Case((1,), (2, 3), (-0.5, -0.5), (-0.501, -0.499), (1.0, 1.0))
    known.check(Known("base", "", (near,)), [((2, 3), (-0.501, -0.499))])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"cases": []},
        {"cases": [{}]},
        {"cases": [dict.fromkeys(Case.__slots__, [])]},
        {"cases": [dict.fromkeys(Case.__slots__, [1]) | {"margins": [1, 2]}]},
        {"cases": [dict.fromkeys(Case.__slots__, [1]) | {"tokens": [-1]}]},
        {"cases": [dict.fromkeys(Case.__slots__, [1]) | {"tokens": [True]}]},
        {"cases": [dict.fromkeys(Case.__slots__, [1]) | {"tokens": [1.5]}]},
        {"cases": [dict.fromkeys(Case.__slots__, [1]) | {"logprobs": ["x"]}]},
        {"cases": [dict.fromkeys(Case.__slots__, [1])] * 33},
        {"base": None},
    ],
)
def test_what_is_no_record_is_not_read(change):
    with pytest.raises(Malformed):
        known.parse(json.dumps(json.loads(known.dump(KNOWN)) | change).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"version": 1, "base": {}, "cases": NaN}'])
def test_neither_is_what_is_no_json(text):
    with pytest.raises(Malformed):
        known.parse(text)


def test_an_infinite_number_is_none():
    text = known.dump(KNOWN).replace(b"-0.1,", b"-Infinity,")
    with pytest.raises(Malformed):
        known.parse(text)
