"""What a caller saw and what the ledger says: every way in which they can differ is counted, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gateway_parts import books
from benchmarks.gateway_parts.books import Row, Told
from benchmarks.suite import reached

# 12 tokens at $3 and 20 at $15 a million, in nano-dollars
TOLD = Told("delivered", "req_a", "k1", 12, 20)
ROW = Row("req_a", "gateway", "settled", "k1", 12, 20, 336_000)
LEFT = Told("left", "req_b", "k1", 0, 0)


def test_an_answer_and_its_row_agree():
    assert books.mismatches([TOLD], [ROW]) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (replace(ROW, inputs=13), "the ledger says"),
        (replace(ROW, outputs=0), "the ledger says"),
        (replace(ROW, cost_nano=335_999), "the ledger says"),
        (replace(ROW, status="estimated"), "delivered, but estimated"),
        (replace(ROW, key="k2"), "the key k2"),
        (replace(ROW, request_id="req_z"), "no row"),
        (replace(ROW, source="correction"), "no row"),
    ],
)
def test_one_difference_is_one_mismatch(row, says):
    found = books.mismatches([TOLD], [row])
    assert len(found) == 1
    assert says in found[0]


def test_a_correction_is_part_of_what_the_ledger_says():
    first = replace(ROW, outputs=0, cost_nano=36_000)
    correction = replace(ROW, source="correction", inputs=0, cost_nano=300_000)
    assert books.mismatches([TOLD], [first, correction]) == []
    assert len(books.mismatches([TOLD], [first])) == 1


def test_two_rows_of_one_call_and_two_answers_of_one_id_are_found():
    other = Row("req_c", "gateway", "aborted", "k1", 0, 0, 0)
    assert books.mismatches([], [other, other]) == ["req_c: 2 rows"]
    assert books.mismatches([TOLD, TOLD], [ROW]) == ["req_a: two answers have this id"]


def test_a_stream_that_was_left_has_one_row_of_any_kind():
    for status in ("settled", "aborted", "estimated"):
        assert books.mismatches([LEFT], [replace(ROW, request_id="req_b", status=status)]) == []
    assert books.mismatches([LEFT], []) == ["req_b: left, no row"]


def test_a_hold_that_has_not_lapsed_excuses_a_stream_and_never_an_answer():
    assert books.mismatches([LEFT], [], {"req_b"}) == []
    assert books.mismatches([TOLD], [], {"req_a"}) == ["req_a: delivered, no row"]


def test_a_line_that_was_cut_off_is_none():
    lines = ["delivered\treq_a\tk1\t12\t20\n", "left\treq_b\tk1\t0\t0\n", "delivered\treq_c\tk1\t1"]
    assert books.read(lines) == [TOLD, LEFT]


def test_a_target_bounds_from_the_side_it_names():
    assert reached(15, "<= 15")
    assert not reached(15.1, "<= 15")
    assert reached(60, ">= 60")
    assert not reached(59.9, ">= 60")
