"""Reconciliation with the embedded engine, for real: not one token of difference."""

from __future__ import annotations

from typing import Any

import pytest

from inference import reconciliation, registry, serving
from inference.models import EngineReading, Residence
from inference.tests import reconciled
from inference.tests.conftest import Serving
from inference.tests.test_engine import serve, wait_until_ready
from inference.tests.tiny import CONTEXT, WORDS, make_all
from inference.tests.vllm.conftest import open_up, publish

pytestmark = [pytest.mark.training, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def embedded(serving: Serving, cast: Any, settings: Any, tmp_path: Any) -> Any:
    """`serving` before the embedded engine with Acme's adapter `destek-v1`, asked for its known answers."""
    base, paths = make_all(tmp_path / "models", ["a0"])
    server, engine = serve(base, "demo-base")
    wait_until_ready(engine)
    settings.ENGINE_URL, serving.agent = engine.url, None
    serving.look()
    registry.enter_base("demo-base", str(base), context_tokens=CONTEXT)
    registry.load(publish(cast.acme, "destek", paths["a0"]))
    reconciliation.read()
    reconciliation.compare()
    open_up(cast.acme)
    serving.look()
    assert Residence.objects.get().state == Residence.State.ELIGIBLE
    yield serving
    server.should_exit = True


def test_of_calls_of_every_kind_the_ledger_has_each_token(embedded, key):
    asked = serving.engine()  # as a job asks, past the gateway
    asked.chat("demo-base", [{"role": "user", "content": WORDS[0]}], max_tokens=9)
    count = reconciled.calls(embedded, key, ["demo-base", "destek-v1"])
    reading = reconciled.measure(embedded)
    assert len(embedded.rows()) == count == 100
    assert reading.difference == [0, 0]
    assert reading.own[0] > 0  # known answers and the job's question
    assert reading.booked == [
        sum(row.input_tokens for row in embedded.rows()),
        sum(row.output_tokens for row in embedded.rows()),
    ]
    assert not {"left", "lost", "edges", "repeated"} & reading.allowed.keys()
    assert reading.holds


def test_several_answers_and_a_reader_that_left_stay_within_what_is_said(embedded, key):
    reconciled.measure(embedded)
    body = {"n": 3, "seed": 1, "max_tokens": 8, "temperature": 1}
    assert embedded.post(key, body).status_code == 200
    (row,) = embedded.rows()
    several = reconciled.measure(embedded)
    assert several.difference == [2 * row.input_tokens, 0]
    assert several.allowed["repeated"] == [2 * several.longest, 0]
    reconciled.leave(embedded, key, "demo-base")
    while len(embedded.rows()) < 2:
        pass
    left = reconciled.measure(embedded)
    assert 0 <= left.difference[1] <= reconciliation.ABORT_TOKENS
    assert left.allowed["left"] == [0, reconciliation.ABORT_TOKENS]
    assert left.holds


def test_calls_past_the_gateway_are_found(embedded, key):
    from inference.engines.client import Engine

    reconciled.measure(embedded)
    reconciled.calls(embedded, key, ["demo-base"], 1)
    told = Engine(serving.engine().url).chat("demo-base", [{"role": "user", "content": "kaçak"}], max_tokens=10)
    reading = reconciled.measure(embedded)
    assert reading.difference == [told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]]
    assert not EngineReading.objects.get(pk=reading.pk).holds
