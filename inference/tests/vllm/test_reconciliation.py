"""Reconciliation with vLLM itself: not one token of difference, whatever the kind of call."""

from __future__ import annotations

import time

import pytest

from inference import reconciliation
from inference.tests import reconciled
from inference.tests.vllm.conftest import Front

pytestmark = pytest.mark.vllm


def test_of_calls_of_every_kind_the_ledger_has_each_token(front: Front):
    reconciled.measure(front.serving)
    count = reconciled.calls(front.serving, front.key, ["demo-base", "destek-v1"])
    reading = reconciled.measure(front.serving)
    assert len(front.serving.rows()) == count == 100
    assert reading.difference == [0, 0]
    assert reading.booked[0] > 0
    assert not {"left", "lost", "edges", "repeated"} & reading.allowed.keys()
    assert reading.holds


def test_several_answers_and_a_reader_that_left_stay_within_what_is_said(front: Front):
    reconciled.measure(front.serving)
    body = {"n": 3, "seed": 1, "max_tokens": 8, "temperature": 1}
    assert front.serving.post(front.key, body).status_code == 200
    (row,) = front.serving.rows()
    several = reconciled.measure(front.serving)
    assert several.difference == [2 * row.input_tokens, 0]
    assert several.allowed["repeated"][0] >= several.difference[0]
    reconciled.leave(front.serving, front.key, "demo-base")
    while len(front.serving.rows()) < 2:
        time.sleep(0.05)
    left = reconciled.measure(front.serving)
    print("left:", left.difference, left.allowed)
    assert 0 <= left.difference[1] <= reconciliation.ABORT_TOKENS
    assert left.holds
