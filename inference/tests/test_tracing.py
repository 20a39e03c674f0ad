"""Spans of calls, to a receiver that really takes OTLP over HTTP; and nothing of it where no endpoint is set."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from inference import aliases
from inference.gateway import tracing
from inference.gateway.app import Gateway
from inference.tests.conftest import HELLO, Serving, keep, load
from inference.tests.signed import answering
from tenants import limits, refusals

pytestmark = pytest.mark.django_db(transaction=True)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=a1"}


class Receiver:
    """What came, decoded by the package's own classes; `bodies` as they came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                packed = self.headers.get("content-encoding") == "gzip"
                outer.bodies.append(gzip.decompress(body) if packed else body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self) -> list[tuple[dict[str, Any], trace_pb2.Span]]:
        """Each span with its resource's attributes."""
        found = []
        for body in self.bodies:
            for group in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
                of = attributes(group.resource.attributes)
                found += [(of, span) for scope in group.scope_spans for span in scope.spans]
        return found


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Receiver]:
    receiver = Receiver()
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    yield receiver
    receiver.server.shutdown()


@pytest.fixture
def traced(receiver, loop_thread, redis_url, base, settings, monkeypatch) -> Iterator[Serving]:
    """`serving` whose gateway sends spans."""
    monkeypatch.setattr("inference.tests.conftest.Gateway", partial(Gateway, trace=True))
    serving = Serving(loop_thread, redis_url)
    serving.writer.drain()
    serving.start()
    settings.ENGINE_URL = f"http://127.0.0.1:{serving.engine_port}"
    serving.look()
    yield serving
    serving.stop()


def spans(traced: Serving, receiver: Receiver) -> list[tuple[dict[str, Any], trace_pb2.Span]]:
    """All there are: the gateway sends what waits."""
    traced.gateway._tracing._provider.force_flush()  # type: ignore[union-attr]
    return receiver.told()


def ask(
    traced: Serving, key: str, body: dict[str, Any] | None = None, also: dict[str, str] | None = None
) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"} | (also or {})
    return httpx2.post(f"{traced.url}/chat/completions", json=HELLO | (body or {}), headers=headers, timeout=20)


def test_a_call_is_one_span_by_the_convention(traced, key, receiver, cast):
    answer = ask(traced, key, {"temperature": 0, "seed": 3, "n": 2, "max_tokens": 9})
    ((of, span),) = spans(traced, receiver)
    (row,) = traced.rows()
    assert of["service.name"] == "paramstack-gateway"
    assert (span.name, span.kind) == ("chat demo-base", trace_pb2.Span.SPAN_KIND_CLIENT)
    assert attributes(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "paramstack",
        "gen_ai.request.model": "demo-base",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 3,
        "gen_ai.response.id": row.request_id,
        "gen_ai.response.model": "demo-base",
        "gen_ai.usage.input_tokens": row.input_tokens,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": row.output_tokens,
        "server.address": "127.0.0.1",
        "server.port": traced.engine_port,
        "paramstack.engine": row.engine,
        "paramstack.request_id": answer.headers["x-request-id"],
        "paramstack.tenant_id": str(cast.acme.pk),
        "paramstack.cost_nano": row.cost_nano,
        "paramstack.status": "settled",
    }
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 20e9


def test_nothing_of_what_was_said_leaves(traced, key, receiver):
    wishes = {"user": "ayse@firma.example", "stop": ["gizli-dur"], "metadata": {"a": "gizli-not"}}
    assert ask(traced, key, {"stream": True} | wishes).status_code == 200
    assert spans(traced, receiver)
    for text in ("Merhaba", "dünya", "ayse", "gizli", key, key.split("_")[3]):
        assert not any(text.encode() in body for body in receiver.bodies)


def test_the_caller_s_trace_goes_on_to_the_engine(traced, key, receiver):
    ask(traced, key, also=CALLER)
    ((_, span),) = spans(traced, receiver)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    (headers,) = traced.engine.headers
    assert headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert headers["tracestate"] == "vendor=a1"


@pytest.mark.parametrize("wrong", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_a_trace_that_is_none_begins_a_new_one(traced, key, receiver, wrong):
    ask(traced, key, also={"traceparent": wrong})
    ((_, span),) = spans(traced, receiver)
    assert span.parent_span_id == b""
    (headers,) = traced.engine.headers
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", headers["traceparent"])  # 2: a random id
    assert span.trace_id.hex() in headers["traceparent"]


def test_a_trace_that_the_caller_does_not_record_is_passed_on_and_not_sent(traced, key, receiver):
    ask(traced, key, also={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert spans(traced, receiver) == []
    (headers,) = traced.engine.headers
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00", headers["traceparent"])


def test_what_went_wrong_is_an_error_with_its_type(traced, key, receiver, cast):
    traced.engine.refuse = 500
    ask(traced, key)
    ((_, span),) = spans(traced, receiver)
    told = attributes(span.attributes)
    assert (told["error.type"], told["paramstack.status"]) == ("engine_unavailable", "aborted")
    assert span.status.code == trace_pb2.Status.STATUS_CODE_ERROR


def test_a_fallback_is_told_with_what_answered(traced, key, receiver, cast, base, publish):
    adapter = answering(publish())
    aliases.set_fallback(aliases.create(cast.acme, "bot", base), adapter, None)
    traced.engine.fails = {"demo-base": 404}
    ask(traced, key, {"model": "bot", "stream": True})
    ((_, span),) = spans(traced, receiver)
    told = attributes(span.attributes)
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("bot", adapter.engine_name)
    assert (told["paramstack.arm"], told["paramstack.adapter_digest"]) == ("fallback", adapter.digest)
    assert told["gen_ai.usage.output_tokens"] == 4


def test_a_stream_says_when_its_first_came(traced, key, receiver):
    traced.engine.pause = 0.03
    ask(traced, key, {"stream": True})
    ((_, span),) = spans(traced, receiver)
    assert 0.03 <= attributes(span.attributes)["gen_ai.response.time_to_first_chunk"] < 5


def test_who_is_not_admitted_has_no_span(traced, key, receiver, cast):
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=0)
    assert ask(traced, key).status_code == 429
    assert spans(traced, receiver) == []


def test_an_end_sends_what_waits_and_waits_for_nobody(receiver, redis_url, loop_thread, monkeypatch):
    made = tracing.Tracing()
    made._tracer.start_span("last").end()
    loop_thread.run(made.close())
    assert [span.name for _, span in receiver.told()] == ["last"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
    lost = tracing.Tracing()
    lost._tracer.start_span("lost").end()
    loop_thread.run(lost.close(), timeout=5)


def test_without_the_package_an_endpoint_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.MissingPackage, match="requirements-tracing.txt"):
        Gateway(load, "redis://127.0.0.1:9", refusals.secret(), keep, trace=True)


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"])
def test_without_an_endpoint_nothing_of_it_is_imported(endpoint):
    """Nothing by us: redis-py imports OpenTelemetry's metrics wherever they are installed."""
    script = "import paramstack_site.gateway, sys; print(*sys.modules)"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "REDIS_URL") if name in os.environ}
    env = kept | {"DJANGO_SETTINGS_MODULE": "paramstack_site.settings.test", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True).stdout
    for name in ("inference.gateway.tracing", "opentelemetry.sdk.trace", "opentelemetry.exporter"):
        assert (name in told.split()) == bool(endpoint)
