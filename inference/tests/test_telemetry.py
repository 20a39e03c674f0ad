"""What an operator sees of calls: metrics with the convention's names, a line of JSON each, and no content."""

import asyncio
import io
import json
import random
from typing import Any

import pytest
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families

from inference.gateway import telemetry
from inference.gateway.snapshot import Host
from inference.gateway.telemetry import Telemetry
from tenants.metering import Event

HOST = Host("engine-1", "http://127.0.0.1:1")


def event(**facts):
    told: dict[str, Any] = {
        "status": "settled",
        "input_tokens": 7,
        "output_tokens": 5,
        "latency_ms": 500,
        "ttft_ms": 100,
    }
    return Event("req_1", "tenant-1", "key-1", "2026-11-25", model="chat", served="demo", **(told | facts))


def samples():
    body, _ = telemetry.exposition()
    families = text_string_to_metric_families(body.decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def change(before, after, name, **labels):
    place = (name, *sorted(labels.items()))
    return after[place] - before.get(place, 0)


CALL = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "demo", "server_address": "engine-1"}


def test_a_call_is_counted_once_with_its_times_and_tokens():
    before = samples()
    Telemetry().ended("chat", event(), HOST)
    after = samples()
    assert change(before, after, "paramstack_gateway_calls_total", status="settled") == 1
    assert change(before, after, "gen_ai_client_token_usage_total", **CALL, gen_ai_token_type="input") == 7
    assert change(before, after, "gen_ai_client_token_usage_total", **CALL, gen_ai_token_type="output") == 5
    assert change(before, after, "gen_ai_server_request_duration_seconds_sum", **CALL, error_type="") == 0.5
    assert change(before, after, "gen_ai_server_time_to_first_token_seconds_sum", **CALL) == 0.1
    assert change(before, after, "gen_ai_server_time_per_output_token_seconds_sum", **CALL) == pytest.approx(0.1)


def test_an_error_has_its_type_and_a_rule_of_a_tenant_is_no_label():
    before = samples()
    shown = Telemetry()
    shown.ended("chat", event(status="aborted", reason="engine_failed"), HOST)
    shown.ended("chat", event(status="blocked", reason="my-own-rule"), None)
    after = samples()
    assert (
        change(before, after, "gen_ai_server_request_duration_seconds_count", **CALL, error_type="engine_failed") == 1
    )
    blocked = CALL | {"server_address": "", "error_type": "guardrail_blocked"}
    assert change(before, after, "gen_ai_server_request_duration_seconds_count", **blocked) == 1
    assert not [place for place in after if "my-own-rule" in str(place)]


async def test_lines_are_written_in_the_background_and_all_of_them_at_the_end():
    lines = io.BytesIO()
    shown = Telemetry(lines)
    shown.start()
    shown.ended("chat", event(), HOST)
    await asyncio.sleep(2 * telemetry.FLUSH_SECONDS)
    first = lines.getvalue()
    shown.ended("chat", event(status="aborted", reason="engine_failed"), HOST)
    await shown.close()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert first.count(b"\n") == 1
    assert [(line["request_id"], line["status"], line["engine"]) for line in told] == [
        ("req_1", "settled", "engine-1"),
        ("req_1", "aborted", "engine-1"),
    ]


def test_a_reader_that_is_too_slow_costs_lines_and_not_memory(monkeypatch):
    monkeypatch.setattr(telemetry, "MOST_LINES", 3)
    before = samples()
    shown = Telemetry(io.BytesIO())
    for _ in range(5):
        shown.ended("chat", event(), HOST)
    assert len(shown._waiting) == 3
    assert change(before, samples(), "paramstack_gateway_dropped_log_lines_total") == 2


@pytest.mark.parametrize(
    ("address", "inside"),
    [("127.0.0.1", True), ("10.1.2.3", True), ("::1", True), ("", True), ("8.8.8.8", False), ("proxy", False)],
)
def test_metrics_are_for_those_inside(address, inside):
    client = (address, 1) if address else None
    assert telemetry.is_inside({"client": client, "headers": [(b"host", b"x")]}) is inside


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"via"])
def test_metrics_are_not_told_through_a_proxy_of_the_private_network(name):
    assert not telemetry.is_inside({"client": ("10.0.0.1", 1), "headers": [(name, b"8.8.8.8")]})


def test_a_log_that_nobody_reads_any_more_ends_nothing():
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    before = samples()
    shown = Telemetry(Closed())
    shown.ended("chat", event(), HOST)
    shown._write()
    assert change(before, samples(), "paramstack_gateway_dropped_log_lines_total") == 1


@pytest.mark.django_db(transaction=True)
def test_a_refused_call_is_counted_by_its_code(serving):
    before = samples()
    assert serving.post("ps_live_nonsense").status_code == 401
    assert change(before, samples(), "paramstack_gateway_refusals_total", code="invalid_api_key") == 1


def test_sums_fall_into_the_buckets_into_which_each_observation_would():
    dice = random.Random(7)
    bounds = (0.1, 0.5, 2.0)
    values = [*bounds, 0.0, 2.0000001, 99.0, *(dice.uniform(0, 3) for _ in range(200))]
    told = telemetry.Distribution("told", "", buckets=bounds, registry=None)
    reference = Histogram("told", "", buckets=bounds, registry=None)
    sums = telemetry.Sums(told, bounds)
    for number, value in enumerate(values):
        reference.observe(value)
        sums.observe(value)
        if number % 50 == 0:
            sums.tell()
    sums.tell()
    sums.tell()  # nothing is told twice
    (mine,), (theirs,) = told.collect(), reference.collect()
    shown = [
        [(s.name, s.labels, s.value) for s in metric.samples if s.name != "told_created"] for metric in (mine, theirs)
    ]
    assert [name for name, *_ in shown[0]] == [name for name, *_ in shown[1]]
    assert shown[0][:-1] == shown[1][:-1]
    assert shown[0][-1][2] == pytest.approx(shown[1][-1][2])  # the sum, whose parts were added in another order


async def test_what_is_under_way_is_told_when_the_metrics_are_read():
    before = samples()
    shown = Telemetry()
    shown.under_way = 3
    assert change(before, samples(), "paramstack_gateway_in_flight_requests") == 3
    shown.under_way = 1
    assert change(before, samples(), "paramstack_gateway_in_flight_requests") == 1
    shown.under_way = 0
    await shown.close()
    assert change(before, samples(), "paramstack_gateway_in_flight_requests") == 0
